"""Clusters of several nodes on one machine, for tests: as ``ray.cluster_utils``.

What ``skate start`` and ``skate stop`` do is here, too.
"""

from skate.api.cluster_nodes import ClusterNode as ClusterNode
from skate.api.cluster_nodes import start_node as start_node
from skate.api.cluster_nodes import stop_nodes as stop_nodes
from skate.api.cluster_nodes import token_of as token_of
from skate.api.cluster_utils import Cluster as Cluster
