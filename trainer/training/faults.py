"""Faults on purpose, to rehearse what a run does about them: `--inject`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

import numpy as np

from trainer.cluster import Cluster
from trainer.config_values import Fault
from trainer.model.classifier import Classifier
from trainer.training.loop import Boundary


class InjectFaults:
    """Brings about the faults whose step has come. There must be a boundary at each of these steps.

    Stands first among the actions: what a killed process would have saved at that step is lost.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        cluster: Cluster,
        model: Classifier,
        *,
        signal_self: Callable[[signal.Signals], object] = lambda number: os.kill(os.getpid(), number),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepares them.

        Args:
          faults: those that happen at a step; others are left to others.
          cluster: of several workers, the last one is the slow one, and the one that is killed or asked to stop.
          model: gets weights that are no numbers.
          signal_self: sends a signal to this process.
          sleep: waits that many seconds.
        """
        self._faults = [fault for fault in faults if fault.step]
        self._is_last_worker = cluster.worker_index == cluster.workers - 1
        self._model = model
        self._signal_self = signal_self
        self._sleep = sleep

    @property
    def steps(self) -> list[int]:
        """After which steps something happens."""
        return sorted({fault.step for fault in self._faults})

    def __call__(self, boundary: Boundary) -> None:
        """Does what is planned for the step that is done, in the order of `faults`."""
        for fault in self._faults:
            if fault.step == boundary.progress.step:
                self._bring_about(fault)

    def _bring_about(self, fault: Fault) -> None:
        if fault.kind == "nan":
            for weight in self._model.trainable_variables:
                weight.assign(np.full(weight.shape, np.nan))
        if not self._is_last_worker:
            return
        if fault.kind == "slow_worker":
            self._sleep(fault.amount)
        elif fault.kind == "kill":
            self._signal_self(signal.SIGKILL)
        elif fault.kind == "preempt":
            self._signal_self(signal.SIGTERM)
