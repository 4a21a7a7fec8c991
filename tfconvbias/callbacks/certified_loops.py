"""The loops of `weight_steps`, in plain Python for Numba to compile."""


def step_weights(inputs, gradient, rows, starts, sizes, clip, is_soft, first, last, values):
    """One step of β-LASSO on the stored weights of a run of units, written to `values`.

    Args:
        inputs: Array `(inputs, batch)`.
        gradient: Array `(units, batch)`: the gradient of the units' sums.
        rows: Integer array `(nonzeros,)`: the input that each weight reads.
        starts: Integer array `(units + 1,)`: where each unit's weights begin.
        sizes: η, η λ and β λ, in the dtype of the weights.
        clip: Gradients are clipped to `[-clip, clip]`.
        is_soft: Whether weights shrink by β λ, and not only vanish below it.
        first: The first of the units.
        last: The unit after the last of them.
        values: Array `(nonzeros,)`.

    Returns:
        How many zeros among the weights became others, and how many are zero now.
    """
    rate, pull, cutoff = sizes
    batch, zero = inputs.shape[1], values.dtype.type(0)
    num_returned = num_zeros = 0
    for unit in range(first, last):
        for k in range(starts[unit], starts[unit + 1]):
            row, total = rows[k], zero
            for b in range(batch):
                total += inputs[row, b] * gradient[unit, b]
            if total > clip:
                total = clip
            elif total < -clip:
                total = -clip
            before = values[k]
            drawn = pull if before > zero else -pull if before < zero else zero
            moved = before - (rate * total + drawn)
            # Asked this way round, a NaN stays.
            if abs(moved) < cutoff:
                moved = zero
            elif is_soft:
                moved -= cutoff if moved > zero else -cutoff
            values[k] = moved
            if moved == zero:
                num_zeros += 1
            elif before == zero:
                num_returned += 1
    return num_returned, num_zeros


def merge_weights(values, rows, starts, new, new_rows, new_units, out, out_rows, out_starts):
    """Write the stored weights and new ones in one order, without zeros.

    A new weight whose place is in store is left out.

    Args:
        values: Array `(nonzeros,)`.
        rows: As for `step_weights`.
        starts: As for `step_weights`.
        new: Array of the new weights, sorted by unit and input.
        new_rows: The input that each of them reads.
        new_units: The unit of each of them.
        out: Array of at least as many weights as there are of both, written to.
        out_rows: Integer array of the same size, written to.
        out_starts: Integer array like `starts`, written to.

    Returns:
        How many of the new weights were written.
    """
    size = num_new = m = 0
    for unit in range(starts.size - 1):
        out_starts[unit] = size
        k, last = starts[unit], starts[unit + 1]
        while True:
            is_new = m < new.size and new_units[m] == unit
            # The weights before the next new one, or all that are left.
            while k < last and (not is_new or rows[k] <= new_rows[m]):
                if values[k] != 0:
                    out[size], out_rows[size] = values[k], rows[k]
                    size += 1
                k += 1
            if not is_new:
                break
            is_known = k > starts[unit] and rows[k - 1] == new_rows[m]
            if new[m] != 0 and not is_known:
                out[size], out_rows[size] = new[m], new_rows[m]
                size += 1
                num_new += 1
            m += 1
    out_starts[starts.size - 1] = size
    return num_new
