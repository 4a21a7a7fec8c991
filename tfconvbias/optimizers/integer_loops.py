"""The loops of `integer_screen`: plain Python for Numba to compile, and the product it rests on."""

from typing import Any

import numpy as np

# The product is computed for so many inputs and units at a time: as many sums as the registers of
# a processor with 512-bit vectors hold. On others it is right and slower.
TILE_INPUTS, TILE_UNITS = 4, 64
_WORDS = 16


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


def pack_inputs(inputs, rows, centers, scales, packed):
    """Write the inputs `rows`, less their centers and scaled, as integers `(rows, batch)`."""
    size = inputs.shape[1]
    for i in range(rows.size):
        run, center, scale = inputs[rows[i]], centers[i], scales[i]
        for b in range(size):
            packed[i, b] = np.int16(np.rint((run[b] - center) * scale))


def pack_units(gradient, units, scales, packed):
    """Write the units as integers `(tiles, batch / 2, TILE_UNITS, 2)`: pairs of examples."""
    size = gradient.shape[1]
    for j in range(units.size):
        run, scale = gradient[units[j]], scales[j]
        tile, place = packed[j // TILE_UNITS], j % TILE_UNITS
        for b in range(size):
            tile[b // 2, place, b % 2] = np.int16(np.rint(run[b] * scale))


def integer_product(products, words, tile):
    """Multiply packed integers of inputs `(TILE_INPUTS, words)` and units `(words, TILE_UNITS)`.

    This is what runs without Numba; `compile_integer_product` gives Numba something faster.
    """
    pairs = words.view(np.int16).astype(np.int32)
    examples = tile.view(np.int16).reshape(-1, TILE_UNITS, 2).transpose(0, 2, 1)
    products[:] = (pairs @ examples.reshape(-1, TILE_UNITS)).ravel()


def screen(
    inputs, gradient, rows, units, words, tiles, row_limits, unit_limits, errors, limit, part
):
    """Inputs, units and gradients of the weights that may reach the limit.

    Args:
        inputs: Array `(inputs, batch)`.
        gradient: Array `(units, batch)`.
        rows: Indices of the inputs to screen, the one of largest norm first.
        units: Indices of the units to screen, the one of largest norm first.
        words: Packed inputs as 32-bit words `(rows rounded up, batch / 2)`.
        tiles: Packed units as 32-bit words `(tiles, batch / 2, TILE_UNITS)`.
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
            integer_product(products, words[top : top + TILE_INPUTS], tiles[tile])
            reached = np.int32(0)
            for t in range(TILE_INPUTS * TILE_UNITS):
                reached = max(reached, abs(products[t]))
            if reached < needed:
                continue
            for t in range(TILE_INPUTS * TILE_UNITS):
                i, j = top + t // TILE_UNITS, tile * TILE_UNITS + t % TILE_UNITS
                if i >= rows.size or j >= units.size:
                    continue
                if abs(products[t]) < row_limits[i] * unit_limits[j] - margin:
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


def compile_integer_product():
    """Have Numba multiply a tile of 16-bit integers, adding in 32 bits, by vectors.

    Processors multiply two pairs of 16-bit integers and add both products in one instruction,
    twice as fast as they multiply floats. Loops of Numba's own do not become that instruction, so
    it is written in LLVM's vectors here, from which LLVM makes what the processor has.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic, overload

    index, word = ir.IntType(64), ir.IntType(32)
    vector = ir.VectorType(word, _WORDS)
    halves = ir.VectorType(ir.IntType(16), 2 * _WORDS)
    wide = ir.VectorType(word, 2 * _WORDS)
    num_vectors = TILE_UNITS // _WORDS

    def picked(builder, source, places):
        lanes = ir.Constant(ir.VectorType(word, len(places)), places)
        return builder.shuffle_vector(source, ir.Constant(source.type, ir.Undefined), lanes)

    def widened(builder, words):
        return builder.sext(builder.bitcast(words, halves), wide)

    def generate(context, builder, signature, arguments):
        arrays = [
            context.make_array(kind)(context, builder, argument)
            for kind, argument in zip(signature.args, arguments, strict=True)
        ]
        products, words, tile = (builder.bitcast(array.data, word.as_pointer()) for array in arrays)
        num_words = cgutils.unpack_tuple(builder, arrays[1].shape)[1]

        def vector_at(base, place):
            return builder.bitcast(builder.gep(base, [place]), vector.as_pointer())

        sums = [
            [
                cgutils.alloca_once_value(builder, ir.Constant(vector, None))
                for _ in range(num_vectors)
            ]
            for _ in range(TILE_INPUTS)
        ]
        with cgutils.for_range(builder, num_words, intp=index) as loop:
            begin = builder.mul(loop.index, index(TILE_UNITS))
            pulls = [
                builder.load(vector_at(tile, builder.add(begin, index(_WORDS * v))), align=4)
                for v in range(num_vectors)
            ]
            for i, row in enumerate(sums):
                place = builder.add(builder.mul(num_words, index(i)), loop.index)
                source = builder.load(builder.gep(words, [place]))
                single = builder.insert_element(ir.Constant(vector, ir.Undefined), source, word(0))
                repeated = widened(builder, picked(builder, single, [0] * _WORDS))
                for pull, total in zip(pulls, row, strict=True):
                    both = builder.mul(repeated, widened(builder, pull))
                    pair = builder.add(
                        picked(builder, both, list(range(0, 2 * _WORDS, 2))),
                        picked(builder, both, list(range(1, 2 * _WORDS, 2))),
                    )
                    builder.store(builder.add(builder.load(total), pair), total)
        totals = [total for row in sums for total in row]
        for k, total in enumerate(totals):
            builder.store(builder.load(total), vector_at(products, index(_WORDS * k)), align=4)
        return context.get_dummy_value()

    def typed(typing_context, products, words, tile):
        return types.void(products, words, tile), generate

    # What it makes of `typed` takes one argument less than `typed` does.
    vector_product: Any = intrinsic(typed)

    @overload(integer_product)
    def compiled(products, words, tile):
        return lambda products, words, tile: vector_product(products, words, tile)
