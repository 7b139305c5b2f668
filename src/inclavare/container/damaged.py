"""Removes a container whose record cannot be read: what config.json, beside it, says is enough to find its processes.

Imported only for that.
"""

from __future__ import annotations

import os

from inclavare.container import lifecycle, store
from inclavare.errors import InclavareError
from inclavare.linux import cgroups
from inclavare.oci import jsontext, spec

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.log import Log


def delete(root: str, container_id: str, log: Log) -> None:
    """End the processes in the control groups that the container has as configured, and forget it.

    What is not known for sure stays as it is, and is said: poststop hooks are not run, since nobody can tell which ran
    before.
    """
    record = store.Record(f"{root}/{container_id}", container_id)
    paths: dict[str, str] = {}
    try:
        document = spec.parse(jsontext.loads(record.read(store.CONFIG)))
        paths = cgroups.paths_for(cgroups.read_layout(), document.linux.cgroups_path, container_id)
        if os.getpid() in cgroups.processes(paths):
            paths = {}
    except (InclavareError, OSError) as error:
        log.warning(f"{record.path(store.CONFIG)}: {error}")
    record.cgroups = {name: path for name, path in paths.items() if os.path.isdir(path)}
    fate = "its control groups are removed" if record.cgroups else "processes of it may still be there"
    log.warning(f"the record of container {container_id} is damaged; {fate}, its poststop hooks are not run")
    lifecycle.clean_up(record)
    record.remove()
