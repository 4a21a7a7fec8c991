"""The plainest executor: this process carries out one task after the other."""

from __future__ import annotations

from tfconvbias.lazy import data
from tfconvbias.training.engine.task import Order, Reply, Workplace, execute
from tfconvbias.training.execution import Deadline


class InProcess:
    """Carry tasks out in this process.

    Args:
        deadline: When the work is to end.
        dataset: Images that stand for those of every configuration.
    """

    num_slots = 1
    shares_memory = False

    def __init__(self, deadline: Deadline, dataset: data.ImageDataset | None = None):
        self._place = Workplace(deadline, dataset)
        self._orders: list[Order] = []

    def submit(self, order: Order) -> None:
        """Take an order, which the next `wait` carries out."""
        self._orders.append(order)

    def wait(self) -> list[tuple[str, Reply]]:
        """Carry the orders out and answer them."""
        orders, self._orders = self._orders, []
        return [(order.task.name, execute(order, self._place)) for order in orders]

    def stop(self) -> None:
        """Nothing to do: nothing is under way between two calls of `wait`."""

    def close(self) -> None:
        """Nothing to do: there are no other processes."""
