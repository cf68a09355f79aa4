"""Keys and shapes of official files of BEiT-3, written down from microsoft/unilm beit3/ and torchscale 0.2.0."""

Shapes = dict[str, tuple[int, ...]]


def linear(at: str, out: int, dim: int) -> Shapes:
    return {f'{at}.weight': (out, dim), f'{at}.bias': (out,)}


def norm(at: str, dim: int) -> Shapes:
    return {f'{at}.weight': (dim,), f'{at}.bias': (dim,)}


def layer(at: str, dim: int, hidden: int) -> Shapes:
    """40 tensors. The letter of the modality comes last in attention, and before the parts of the MLP."""
    shapes = {}
    for letter in 'AB':
        for name in ('k_proj', 'v_proj', 'q_proj', 'out_proj'):
            shapes |= linear(f'{at}.self_attn.{name}.{letter}', dim, dim)
        for name in ('self_attn.inner_attn_ln', 'self_attn_layer_norm', 'final_layer_norm'):
            shapes |= norm(f'{at}.{name}.{letter}', dim)
        shapes |= linear(f'{at}.ffn.{letter}.fc1', hidden, dim) | linear(f'{at}.ffn.{letter}.fc2', dim, hidden)
        shapes |= norm(f'{at}.ffn.{letter}.ffn_layernorm', hidden)
    return shapes


def encoder(
    dim: int = 768,
    depth: int = 12,
    hidden: int | None = None,
    side: int = 14,
    patch: int = 16,
    vocab: int = 64010,
    positions: int = 1024,
    final_norm: bool = True,
) -> Shapes:
    shapes = {
        'beit3.text_embed.weight': (vocab, dim),
        'beit3.vision_embed.mask_token': (1, 1, dim),
        'beit3.vision_embed.cls_token': (1, 1, dim),
        'beit3.vision_embed.proj.weight': (dim, 3, patch, patch),
        'beit3.vision_embed.proj.bias': (dim,),
        'beit3.encoder.embed_positions.A.weight': (side**2 + 3, dim),
        'beit3.encoder.embed_positions.B.weight': (positions, dim),
    }
    for i in range(depth):
        shapes |= layer(f'beit3.encoder.layers.{i}', dim, hidden or 4 * dim)
    if final_norm:
        shapes |= norm('beit3.encoder.layer_norm.A', dim) | norm('beit3.encoder.layer_norm.B', dim)
    return shapes


def classifier(dim: int = 768, classes: int = 1000, **kwargs) -> Shapes:
    return encoder(dim, final_norm=False, **kwargs) | norm('fc_norm', dim) | linear('head', classes, dim)


def vqa(dim: int = 768, classes: int = 3129, **kwargs) -> Shapes:
    shapes = encoder(dim, final_norm=False, **kwargs) | norm('pooler.norm', dim) | linear('pooler.dense', dim, dim)
    return shapes | linear('head.0', 2 * dim, dim) | norm('head.1', 2 * dim) | linear('head.3', classes, 2 * dim)


def nlvr2(dim: int = 768, **kwargs) -> Shapes:
    shapes = encoder(dim, **kwargs) | norm('head.norm1', 4 * dim) | linear('head.dense1', 2 * dim, 4 * dim)
    return shapes | norm('head.norm2', 2 * dim) | linear('head.dense2', 2, 2 * dim)


def captioner(dim: int = 768, vocab: int = 64010, **kwargs) -> Shapes:
    return encoder(dim, vocab=vocab, **kwargs) | linear('mlm_head', vocab, dim)


def retrieval(dim: int = 768, **kwargs) -> Shapes:
    heads = {'logit_scale': (), 'language_head.weight': (dim, dim), 'vision_head.weight': (dim, dim)}
    return encoder(dim, **kwargs) | heads


def pretraining(dim: int = 768, vocab: int = 64010, codes: int = 8192, **kwargs) -> Shapes:
    return captioner(dim, vocab, **kwargs) | linear('mim_head', codes, dim)
