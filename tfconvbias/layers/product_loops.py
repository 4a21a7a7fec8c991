"""The products of `sparse_products` as plain loops, for Numba to compile.

Each function does a run of units, or of examples, so that several cores can share the work.
"""


def kernel_product(inputs, values, rows, starts, first, last, outputs):
    """Sum the weighted inputs of the units from `first` to before `last` into `outputs`."""
    batch = inputs.shape[1]
    for unit in range(first, last):
        total = outputs[unit]
        total[:] = 0
        k, end = starts[unit], starts[unit + 1]
        # Four weights at a time, so that the sums are read and written a quarter as often.
        while k + 4 <= end:
            one, two, three, four = values[k], values[k + 1], values[k + 2], values[k + 3]
            row, second, third, fourth = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
            for b in range(batch):
                total[b] += (
                    one * inputs[row, b]
                    + two * inputs[second, b]
                    + three * inputs[third, b]
                    + four * inputs[fourth, b]
                )
            k += 4
        for rest in range(k, end):
            value, row = values[rest], rows[rest]
            for b in range(batch):
                total[b] += value * inputs[row, b]


def weight_gradient(inputs, gradient, rows, starts, first, last, outputs):
    """Write the product of each weight's two runs of activations, for a run of units."""
    batch = inputs.shape[1]
    for unit in range(first, last):
        pull = gradient[unit]
        for k in range(starts[unit], starts[unit + 1]):
            source = inputs[rows[k]]
            total = outputs.dtype.type(0)
            for b in range(batch):
                total += source[b] * pull[b]
            outputs[k] = total


def input_gradient(gradient, values, rows, starts, first, last, outputs):
    """Add every unit's weighted gradient to the inputs that it reads, for a run of examples."""
    width = last - first
    for unit in range(starts.size - 1):
        pull = gradient[unit, first:last]
        for k in range(starts[unit], starts[unit + 1]):
            value, total = values[k], outputs[rows[k], first:last]
            for b in range(width):
                total[b] += value * pull[b]
