"""Clusters of several nodes on one machine, for tests: as ``ray.cluster_utils``."""

from skate.api.cluster_utils import Cluster as Cluster
from skate.api.cluster_utils import ClusterNode as ClusterNode
