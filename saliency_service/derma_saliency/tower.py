"""Records the tensors inside the image tower's blocks during one forward pass.

    with recorded(visual, first=8) as blocks:
        embedding = visual(images)
    blocks[-1].attention                    # (B, heads, tokens, tokens), with its graph

For timm ViTs whose attention is written out (``build_model`` turns the fused one off).
The graph starts before block ``first``: what lies below costs a forward pass only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

# open_clip's TimmModel, an nn.Module whose package has no types.
Tower: TypeAlias = Any


@dataclass(eq=False)
class Block:
    """One block's tensors, filled in by the forward pass; B images, N tokens, C channels.

    Attributes:
        attention: after the softmax, (B, heads, N, N).
        qkv: queries, keys and values, (B, N, 3 C).
        mixed: the values mixed by attention, before the output projection, (B, N, C).
        tokens: what the block gives to the next one, (B, N, C).
    """

    attention: Tensor
    qkv: Tensor
    mixed: Tensor
    tokens: Tensor


@contextmanager
def recorded(visual: Tower, first: int) -> Iterator[list[Block]]:
    """Record the blocks from ``first`` on; negative numbers count from the last one.

    The list fills as the forward pass goes. Not for several threads at once.
    """
    seen: list[Block] = []
    with ExitStack() as hooks:
        for module in visual.trunk.blocks[first:]:
            block = Block.__new__(Block)
            _hook(hooks, module, block, seen)
        hooks.enter_context(graph_from(visual.trunk.blocks[first]))
        yield seen


@contextmanager
def graph_from(module: nn.Module) -> Iterator[None]:
    """Start the graph at the module's input, so that frozen weights have gradients above it."""
    handle = module.register_forward_pre_hook(
        lambda _, given: (given[0].detach().requires_grad_(), *given[1:])
    )
    try:
        yield
    finally:
        handle.remove()


def head(visual: Tower, tokens: Tensor) -> Tensor:
    """The embedding, (B, D), if the last block had given these tokens."""
    trunk = visual.trunk
    embedding: Tensor = visual.head(trunk.forward_head(trunk.norm(tokens)))
    return embedding


def to_grid(visual: Tower, patches: Tensor) -> Tensor:
    """(B, patches, ...) as (B, rows, columns, ...)."""
    grid: Tensor = patches.unflatten(1, visual.trunk.patch_embed.grid_size)
    return grid


def prefix(visual: Tower) -> int:
    """The number of tokens before the patches: the class token, and registers where there are any."""
    return int(visual.trunk.num_prefix_tokens)


def _hook(hooks: ExitStack, module: Any, block: Block, seen: list[Block]) -> None:
    def keep(name: str, tensor: Tensor) -> None:
        setattr(block, name, tensor)

    def end(tokens: Tensor) -> None:
        block.tokens = tokens
        seen.append(block)

    handles = (
        module.attn.attn_drop.register_forward_hook(lambda _, __, out: keep("attention", out)),
        module.attn.qkv.register_forward_hook(lambda _, __, out: keep("qkv", out)),
        module.attn.proj.register_forward_pre_hook(lambda _, given: keep("mixed", given[0])),
        module.register_forward_hook(lambda _, __, out: end(out)),
    )
    for handle in handles:
        hooks.callback(handle.remove)
