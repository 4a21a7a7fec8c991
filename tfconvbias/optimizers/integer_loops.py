"""The loops of `integer_screen`, in plain Python for Numba to compile."""

import numpy as np

# The product is computed for so many inputs and units at a time: as many sums as the registers of
# a processor with 512-bit vectors hold. On others it is right and slower.
TILE_INPUTS, TILE_UNITS = 4, 64


def statistics(runs, first, last, mean, spread, norm):
    """Mean, norm around the mean, and norm of each run of activations, for some of them."""
    tiny = np.finfo(runs.dtype).tiny
    size = runs.shape[1]
    for i in range(first, last):
        run = runs[i]
        total = runs.dtype.type(0)
        for b in range(size):
            total += run[b]
        center = total / runs.dtype.type(size)
        around = around_zero = runs.dtype.type(0)
        for b in range(size):
            around += (run[b] - center) * (run[b] - center)
            around_zero += run[b] * run[b]
        mean[i] = center
        # Rounded up where squares are too small for the dtype.
        spread[i] = np.sqrt(around + size * tiny)
        norm[i] = np.sqrt(around_zero + size * tiny)


def peaks(runs, chosen, centers, found):
    """Write the largest magnitude of each chosen run of activations, less its center."""
    for i in range(chosen.size):
        run, center = runs[chosen[i]], centers[i]
        peak = runs.dtype.type(0)
        for b in range(run.size):
            peak = max(peak, abs(run[b] - center))
        found[i] = peak


def pack_inputs(inputs, rows, centers, scales, offset, packed):
    """Write the inputs `rows`, less their centers, scaled, and shifted by `offset`, as integers.

    Args:
        inputs: Array `(inputs, batch)`.
        rows: Indices of the inputs.
        centers: Number that is taken off each input.
        scales: Number by which each input is multiplied.
        offset: Number that is added to the integers, not to take them for negative ones.
        packed: Integer array `(rows, batch or more)`, written to.

    Returns:
        The largest Euclidean norm of what an input loses by rounding.
    """
    size, largest = inputs.shape[1], 0.0
    for i in range(rows.size):
        run, center, scale = inputs[rows[i]], centers[i], scales[i]
        lost = 0.0
        for b in range(size):
            value = (run[b] - center) * scale
            rounded = np.rint(value)
            lost += (value - rounded) * (value - rounded)
            packed[i, b] = packed.dtype.type(rounded + offset)
        largest = max(largest, lost)
    return np.sqrt(largest)


def pack_units(gradient, units, scales, offset, packed, starts):
    """Write the units as integers `(tiles, words, TILE_UNITS, examples in a word)`.

    Args:
        gradient: Array `(units, batch)`.
        units: Indices of the units.
        scales: Number by which each unit is multiplied.
        offset: What `pack_inputs` adds to the integers of the inputs.
        packed: Integer array, written to.
        starts: Integer array `(tiles, TILE_UNITS)`, written to: what to add to each unit's
            products, from which they are those without the offset.

    Returns:
        The largest Euclidean norm of what a unit loses by rounding.
    """
    size, in_word, largest = gradient.shape[1], packed.shape[3], 0.0
    for j in range(units.size):
        run, scale = gradient[units[j]], scales[j]
        tile, place = packed[j // TILE_UNITS], j % TILE_UNITS
        lost, total = 0.0, 0.0
        for b in range(size):
            value = run[b] * scale
            rounded = np.rint(value)
            lost += (value - rounded) * (value - rounded)
            total += rounded
            tile[b // in_word, place, b % in_word] = packed.dtype.type(rounded)
        starts[j // TILE_UNITS, place] = np.int32(-offset * total)
        largest = max(largest, lost)
    return np.sqrt(largest)


def integer_product(products, words, tile, starts):
    """Multiply packed integers of inputs `(TILE_INPUTS, words)` and units `(words, TILE_UNITS)`.

    Words of `int32` hold two 16-bit integers each; words of `uint32` four 8-bit integers, without
    sign those of inputs. `starts` is added to the products of each input.

    This is what runs without Numba; `integer_vectors` gives Numba something faster.
    """
    kinds = (np.int16, np.int16) if words.dtype == np.int32 else (np.uint8, np.int8)
    examples = words.view(kinds[0]).astype(np.int32)
    pulls = tile.view(kinds[1]).reshape(len(tile), TILE_UNITS, -1).astype(np.int32)
    pulls = pulls.transpose(0, 2, 1).reshape(-1, TILE_UNITS)
    products[:] = (examples @ pulls + starts).ravel()


def screen(
    inputs,
    gradient,
    rows,
    units,
    words,
    tiles,
    starts,
    row_limits,
    unit_limits,
    errors,
    limit,
    part,
):
    """Inputs, units and gradients of the weights that may reach the limit.

    Args:
        inputs: Array `(inputs, batch)`.
        gradient: Array `(units, batch)`.
        rows: Indices of the inputs to screen, the one of largest norm first.
        units: Indices of the units to screen, the one of largest norm first.
        words: Packed inputs as 32-bit words `(rows rounded up, words)`.
        tiles: Packed units as 32-bit words `(tiles, words, TILE_UNITS)`.
        starts: What to add to the products of each unit, `(tiles, TILE_UNITS)`.
        row_limits: Ascending; without rounding, the product of the integers of row i and unit
            j would have to reach `row_limits[i] * unit_limits[j]`.
        unit_limits: Ascending.
        errors: `(margin, largest)`: how far rounding changes a product, and what none exceeds.
        limit: What the magnitude of a gradient has to reach.
        part: `(first, step)`: which of the tiles to do.
    """
    found = np.empty((2, 1024), np.int32)
    gradients = np.empty(1024, inputs.dtype)
    products = np.empty(TILE_INPUTS * TILE_UNITS, np.int32)
    size, num = inputs.shape[1], 0
    (first, step), (margin, largest) = part, errors
    for tile in range(first, tiles.shape[0], step):
        for top in range(0, rows.size, TILE_INPUTS):
            needed = row_limits[top] * unit_limits[tile * TILE_UNITS] - margin
            if needed > largest:
                break
            integer_product(products, words[top : top + TILE_INPUTS], tiles[tile], starts[tile])
            reached = np.int32(0)
            for t in range(TILE_INPUTS * TILE_UNITS):
                reached = max(reached, abs(products[t]))
            if reached < needed:
                continue
            for i in range(top, min(top + TILE_INPUTS, rows.size)):
                own = products[(i - top) * TILE_UNITS : (i - top + 1) * TILE_UNITS]
                reached = np.int32(0)
                for place in range(TILE_UNITS):
                    reached = max(reached, abs(own[place]))
                if reached < row_limits[i] * unit_limits[tile * TILE_UNITS] - margin:
                    continue
                for place in range(TILE_UNITS):
                    j = tile * TILE_UNITS + place
                    if j == units.size:
                        break
                    if abs(own[place]) < row_limits[i] * unit_limits[j] - margin:
                        continue
                    source, pull = inputs[rows[i]], gradient[units[j]]
                    total = inputs.dtype.type(0)
                    for b in range(size):
                        total += source[b] * pull[b]
                    if abs(total) < limit:
                        continue
                    if num == gradients.size:
                        found = np.concatenate((found, np.empty_like(found)), axis=1)
                        gradients = np.concatenate((gradients, np.empty_like(gradients)))
                    found[0, num], found[1, num], gradients[num] = rows[i], units[j], total
                    num += 1
    return found[0, :num], found[1, :num], gradients[:num]
