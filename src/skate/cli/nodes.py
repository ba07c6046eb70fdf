"""``skate start`` and ``skate stop``: nodes that outlive the command and serve any driver."""

from __future__ import annotations

import json
from typing import Any

import click

from skate.cluster_utils import start_node, stop_nodes, token_of


def _resources(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        amounts = json.loads(value)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"it is not JSON ({error}); e.g. '{{\"widget\": 2}}'") from None
    if not isinstance(amounts, dict):
        raise click.BadParameter("it has to be an object, e.g. '{\"widget\": 2}'")
    return amounts


@click.command()
@click.option("--head", is_flag=True, help="Begin a new cluster.")
@click.option("--address", metavar="HOST:PORT", help="Join the cluster of this head node.")
@click.option("--num-cpus", type=float, help="By default all that this process may use.")
@click.option("--num-gpus", type=float, help="By default all that this process may use.")
@click.option(
    "--resources", metavar="JSON", callback=_resources, help="Further resources and their amounts."
)
@click.option("--object-store-memory", type=int, metavar="BYTES", help="Shared memory at most.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where other nodes reach it.")
@click.option("--port", type=int, default=0, help="By default any free one.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve metrics to Prometheus there; 0: on any free port. By default not at all.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen for that; whoever can reach it may read them.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False),
    help="The token of the cluster to join, where no node of it is on this machine.",
)
def start(
    head: bool,
    address: str | None,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: dict[str, float] | None,
    object_store_memory: int | None,
    host: str,
    port: int,
    metrics_port: int | None,
    metrics_host: str,
    token_file: str | None,
) -> None:
    """Start a node of a cluster on this machine.

    It goes on when this command has ended, until `skate stop`.
    """
    if head == (address is not None):
        raise click.UsageError("either --head begins a cluster, or --address=HOST:PORT joins one")
    address = (address or "").removeprefix("skate://")
    token = None
    if address:
        token = token_of(address) if token_file is None else token_of(token_file)
    node = start_node(
        host=host,
        port=port,
        head=address,
        token=token,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        resources=resources,
        object_store_memory=object_store_memory,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
    )
    node.wait_until_joined()
    node.leave()
    click.echo(f"node {node.node_id} runs at {node.address} (pid {node.pid})")
    if head:
        click.echo(
            "\nPrograms of this user on this machine join with\n"
            f'    skate.init(address="auto")    or    SKATE_ADDRESS={node.address}\n'
            "Further nodes join with\n"
            f"    skate start --address={node.address}\n"
            f"and on other machines, with a copy of the token,\n"
            f"    skate start --address={node.address} --token-file=...  "
            f"(here: {node.token_path})\n"
            "End all nodes of this machine with\n"
            "    skate stop"
        )


@click.command()
@click.option("--address", metavar="HOST:PORT", help="Only the nodes of this cluster.")
@click.option("--force", is_flag=True, help="Kill them.")
def stop(address: str | None, force: bool) -> None:
    """End the nodes that were started on this machine, and everything that runs on them."""
    cluster = address.removeprefix("skate://") if address else None
    ended = stop_nodes(cluster, force)
    for node in ended:
        click.echo(f"the node at {node} has ended")
    if not ended:
        which = f"node of the cluster at {cluster}" if cluster else "node"
        click.echo(f"no {which} was started by this user on this machine")
