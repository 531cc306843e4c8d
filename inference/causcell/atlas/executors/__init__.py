"""Executors: who makes the shards of an atlas. `InProcess`, `Processes` and `Dask`; a file each."""

from causcell.atlas.executors.base import Executor
from causcell.atlas.executors.dask import Dask
from causcell.atlas.executors.in_process import InProcess
from causcell.atlas.executors.processes import Processes

__all__ = ["Dask", "Executor", "InProcess", "Processes"]
