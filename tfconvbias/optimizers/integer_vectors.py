"""The product of packed integers, written in LLVM's vectors for Numba.

Processors multiply two pairs of 16-bit integers and add both products in one instruction, twice as
fast as they multiply floats, and some of them four pairs of 8-bit integers. Loops of Numba's own do
not become these instructions, so they are written out here. For 16 bits LLVM makes of them what the
processor has; 8 bits are for processors with AVX-512 VNNI, and only asked for there.
"""

import os
from typing import Any

from tfconvbias.optimizers.integer_loops import TILE_INPUTS, TILE_UNITS, integer_product

_WORDS = 16


def multiplies_bytes() -> bool:
    """Whether the processor multiplies four pairs of 8-bit integers in one instruction.

    Numba must compile for this very processor, which its settings may forbid.
    """
    from llvmlite import binding
    from numba.core import config

    if {"NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"} & os.environ.keys():
        return False
    has_it = bool(binding.get_host_cpu_features().get("avx512vnni"))
    return has_it and getattr(config, "ENABLE_AVX", False)


def compile_integer_product() -> None:
    """Have Numba compile `integer_product` to vector instructions."""
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

    def with_halves(builder, total, source, pull):
        both = builder.mul(widened(builder, source), widened(builder, pull))
        pair = builder.add(
            picked(builder, both, list(range(0, 2 * _WORDS, 2))),
            picked(builder, both, list(range(1, 2 * _WORDS, 2))),
        )
        return builder.add(total, pair)

    def with_bytes(builder, total, source, pull):
        kind = ir.FunctionType(vector, [vector, vector, vector])
        name = "llvm.x86.avx512.vpdpbusd.512"
        instruction = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(instruction, [total, source, pull])

    def generate(context, builder, signature, arguments):
        arrays = [
            context.make_array(kind)(context, builder, argument)
            for kind, argument in zip(signature.args, arguments, strict=True)
        ]
        products, words, tile, starts = (
            builder.bitcast(array.data, word.as_pointer()) for array in arrays
        )
        num_words = cgutils.unpack_tuple(builder, arrays[1].shape)[1]
        accumulated = with_halves if signature.args[1].dtype == types.int32 else with_bytes

        def vector_at(base, place):
            return builder.bitcast(builder.gep(base, [place]), vector.as_pointer())

        first = [
            builder.load(vector_at(starts, index(_WORDS * v)), align=4) for v in range(num_vectors)
        ]
        sums = [
            [cgutils.alloca_once_value(builder, start) for start in first]
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
                repeated = picked(builder, single, [0] * _WORDS)
                for pull, total in zip(pulls, row, strict=True):
                    builder.store(accumulated(builder, builder.load(total), repeated, pull), total)
        totals = [total for row in sums for total in row]
        for k, total in enumerate(totals):
            builder.store(builder.load(total), vector_at(products, index(_WORDS * k)), align=4)
        return context.get_dummy_value()

    def typed(typing_context, products, words, tile, starts):
        return types.void(products, words, tile, starts), generate

    # What it makes of `typed` takes one argument less than `typed` does.
    vector_product: Any = intrinsic(typed)

    @overload(integer_product)
    def compiled(products, words, tile, starts):
        return lambda products, words, tile, starts: vector_product(products, words, tile, starts)
