import re
import sys

import pytest
import torch
from builders import TINY, randomize

from mmbeit.checkpoint.load import CheckpointError
from mmbeit.models import VQKD, TargetGenerator, TimmTeacher, TransformersTeacher

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = dict(embed_dim=24, depth=2, num_heads=3, img_size=32, patch_size=8)
HF = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=32, patch_size=8)
# transformers' names of CLIP, and those of OpenAI's state dict.
OPENAI = [
    (r'vision_model\.embeddings\.class_embedding', 'visual.class_embedding'),
    (r'vision_model\.embeddings\.patch_embedding\.weight', 'visual.conv1.weight'),
    (r'vision_model\.embeddings\.position_embedding\.weight', 'visual.positional_embedding'),
    (r'vision_model\.pre_layrnorm\.(\w+)', r'visual.ln_pre.\1'),
    (r'vision_model\.post_layernorm\.(\w+)', r'visual.ln_post.\1'),
    (r'vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(\w+)', r'visual.transformer.resblocks.\1.ln_\2.\3'),
    (r'vision_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.(\w+)', r'visual.transformer.resblocks.\1.mlp.c_fc.\2'),
    (r'vision_model\.encoder\.layers\.(\d+)\.mlp\.fc2\.(\w+)', r'visual.transformer.resblocks.\1.mlp.c_proj.\2'),
    (
        r'vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)',
        r'visual.transformer.resblocks.\1.attn.out_proj.\2',
    ),
    (r'visual_projection\.weight', 'visual.proj'),
]


def pretrained(state, path):
    torch.save(state, path)
    return dict(type='Pretrained', checkpoint=str(path))


def timm_teacher(name='vit_base_patch16_224.dino', init_cfg=None, **kwargs):
    pytest.importorskip('timm')
    return TimmTeacher(name, **{'stride': 8, **SMALL, **kwargs}, init_cfg=init_cfg)


def clip_teacher(**kwargs):
    name = 'vit_base_patch16_clip_quickgelu_224.openai'
    return timm_teacher(name, **{'project': True, 'num_classes': 10, 'dynamic_img_size': True, **kwargs})


def hf_clip(image_size=32):
    transformers = pytest.importorskip('transformers')
    config = transformers.CLIPVisionConfig(**{**HF, 'image_size': image_size}, projection_dim=10)
    return randomize(transformers.CLIPVisionModelWithProjection(config))


def openai_state(model):
    """The same weights as OpenAI's state dict has them."""
    state, qkv = {}, {}
    for key, value in model.state_dict().items():
        if part := re.fullmatch(r'vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)', key):
            qkv.setdefault((part[1], part[3]), {})[part[2]] = value
            continue
        matches = (re.fullmatch(pattern, key) for pattern, _ in OPENAI)
        match, name = next((m, name) for m, (_, name) in zip(matches, OPENAI, strict=True) if m)
        state[match.expand(name)] = value.t() if name == 'visual.proj' else value
    for (layer, name), parts in qkv.items():
        key = f'visual.transformer.resblocks.{layer}.attn.in_proj_{name}'
        state[key] = torch.cat([parts[letter] for letter in 'qkv'])
    return state


def normalized(images, mean, std):
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32)


# ---- the teachers of the paper ----


@torch.no_grad()
def test_clip_of_timm_and_of_transformers_from_one_set_of_weights(images, tmp_path):
    """What follows the blocks is done to every token: the norm, and the projection to the width of texts."""
    theirs = hf_clip()
    hidden = theirs.vision_model(normalized(images, CLIP_MEAN, CLIP_STD)).last_hidden_state
    expected = theirs.visual_projection(theirs.vision_model.post_layernorm(hidden))[:, 1:]
    one = clip_teacher(init_cfg=pretrained(openai_state(theirs), tmp_path / 'openai.pth'))
    text = {'text_projection.weight': torch.zeros(2, 2), 'logit_scale': torch.zeros(())}
    theirs.save_pretrained(tmp_path / 'hf')
    other = TransformersTeacher(
        'CLIPVisionModelWithProjection',
        str(tmp_path / 'hf'),
        CLIP_MEAN,
        CLIP_STD,
        stride=8,
        project=True,
        init_cfg=pretrained(theirs.state_dict() | text, tmp_path / 'hf.pth'),
    )
    for teacher in (one, other):
        assert teacher.embed_dims == 10 and teacher.patch_size == 8
        torch.testing.assert_close(teacher(images), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_dino_is_the_normalised_last_block_without_its_class_token(images, tmp_path):
    source = randomize(timm_teacher()).network
    # Facebook's names are timm's; a head is left out.
    state = source.state_dict() | {'head.weight': torch.zeros(5, 24), 'head.bias': torch.zeros(5)}
    teacher = timm_teacher(init_cfg=pretrained(state, tmp_path / 'dino.pth'))
    expected = source.forward_features(normalized(images, IMAGENET_MEAN, IMAGENET_STD))[:, 1:]
    torch.testing.assert_close(teacher(images), expected)
    assert isinstance(source.norm, torch.nn.LayerNorm)


def test_sizes_of_the_teachers_of_the_paper():
    pytest.importorskip('timm')
    with torch.device('meta'):
        clip = TimmTeacher('vit_base_patch16_clip_quickgelu_224.openai', project=True)
        dino = TimmTeacher('vit_base_patch16_224.dino')
    assert (clip.embed_dims, dino.embed_dims) == (512, 768)
    # unilm:beit2/vqkd_teacher on images of 224 pixels; timm's projection has a bias, which is zero.
    assert sum(p.numel() for p in clip.parameters()) == 86_192_640 + 512
    assert sum(p.numel() for p in dino.parameters()) == 85_798_656


# ---- every teacher ----


@pytest.mark.parametrize('size', [(32, 32), (24, 40)])
@pytest.mark.parametrize('stride', [8, 16, 4])
def test_grid_is_that_of_the_tokenizer(stride, size):
    images = torch.rand(1, 3, *(side * stride // 8 for side in size))
    for teacher in (clip_teacher(stride=stride), hf_teacher('Dinov2Model', stride=stride)):
        seen = []
        teacher.network.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].shape))
        features = teacher(images)
        assert features.shape == (1, size[0] // 8 * (size[1] // 8), teacher.embed_dims)
    assert seen == [(1, 3, *size)]


def hf_teacher(name, **kwargs):
    pytest.importorskip('transformers')
    return TransformersTeacher(name, dict(HF), IMAGENET_MEAN, IMAGENET_STD, **{'stride': 8, **kwargs})


@pytest.mark.parametrize('name', ['ViTModel', 'Dinov2Model', 'DINOv3ViTModel', 'SiglipVisionModel', 'BeitModel'])
@torch.no_grad()
def test_vision_models_of_transformers(name, images):
    teacher = hf_teacher(name)
    randomize(teacher)
    hidden = teacher.network(normalized(images, IMAGENET_MEAN, IMAGENET_STD)).last_hidden_state
    torch.testing.assert_close(teacher(images), hidden[:, -16:])
    assert teacher(torch.rand(1, 3, 32, 48)).shape == (1, 24, 24)


@pytest.mark.parametrize('name', ['resnet10t', 'convnext_atto'])
def test_convolutions_of_timm_see_a_larger_image(name):
    pytest.importorskip('timm')
    teacher = TimmTeacher(name, stride=16)
    assert teacher.patch_size == 32
    assert teacher(torch.rand(1, 3, 32, 48)).shape == (1, 6, teacher.embed_dims)


def test_resized_images_stay_in_their_range():
    """Bicubic overshoots at an edge, which no image that the teacher was trained with does."""
    teacher, seen = timm_teacher(stride=16, dynamic_img_size=True), []
    teacher.features = lambda images: seen.append(images * teacher.std + teacher.mean)
    images = (torch.arange(32) % 16 < 8).float().expand(1, 3, 32, 32)
    teacher.targets(images)
    assert seen[0].shape == (1, 3, 16, 16)
    assert seen[0].min() >= -1e-6 and seen[0].max() <= 1 + 1e-6


def test_a_beit_of_timm_takes_its_own_file(images, tmp_path):
    """Though a loader of ours would give it our names."""
    kwargs = dict(name='beit_base_patch16_224')
    source = randomize(timm_teacher(**kwargs)).network
    teacher = timm_teacher(**kwargs, init_cfg=pretrained(source.state_dict(), tmp_path / 'beit.pth'))
    teacher.init_weights()
    assert torch.equal(teacher.network.blocks[1].attn.q_bias, source.blocks[1].attn.q_bias)


def test_autocast_is_followed_and_weights_stay_float32(images):
    teacher = randomize(clip_teacher())
    exact = teacher(images)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = teacher(images)
    assert not torch.equal(exact, rounded.float())
    assert torch.cosine_similarity(exact, rounded.float(), dim=-1).min() > 0.999
    teacher.to(torch.bfloat16)
    assert torch.equal(teacher(images), exact)


@pytest.mark.parametrize('build', [clip_teacher, lambda: hf_teacher('Dinov2Model')])
def test_training_leaves_it_as_it_is(build, images):
    teacher = randomize(build())
    model = VQKD(dict(arch=TINY, img_size=32, patch_size=8, num_codes=8, code_dim=4), 1, target_dims=teacher.embed_dims)
    model.__dict__['teacher'] = teacher
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    teacher.train()
    for _ in range(3):
        model.parse_losses(model(images, mode='loss'))[0].backward()
        optimizer.step()
    assert isinstance(teacher, TargetGenerator) and not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


# ---- what does not fit ----


def test_incomplete_files_are_refused_by_name(tmp_path):
    state = timm_teacher().network.state_dict()
    del state['blocks.1.norm1.weight']
    teacher = timm_teacher(init_cfg=pretrained(state, tmp_path / 'timm.pth'))
    with pytest.raises(CheckpointError, match=r'timm\.pth does not fit TimmTeacher.*blocks\.1\.norm1\.weight'):
        teacher.init_weights()
    state = hf_teacher('Dinov2Model').network.state_dict()
    del state['layernorm.weight']
    teacher = hf_teacher('Dinov2Model', init_cfg=pretrained(state, tmp_path / 'hf.pth'))
    with pytest.raises(CheckpointError, match=r'hf\.pth: Dinov2Model misses.*layernorm\.weight'):
        teacher.init_weights()


def test_files_of_another_size_are_refused_by_name(tmp_path):
    wide = timm_teacher(embed_dim=48).network.state_dict()
    with pytest.raises(CheckpointError, match=r'timm\.pth does not fit TimmTeacher'):
        timm_teacher(init_cfg=pretrained(wide, tmp_path / 'timm.pth')).init_weights()
    state = hf_teacher('Dinov2Model').network.state_dict()
    state['layernorm.weight'] = torch.zeros(7)
    with pytest.raises(CheckpointError, match=r'hf\.pth: does not fit Dinov2Model'):
        hf_teacher('Dinov2Model', init_cfg=pretrained(state, tmp_path / 'hf.pth')).init_weights()


def test_unknown_names_are_refused():
    pytest.importorskip('timm')
    pytest.importorskip('transformers')
    with pytest.raises(ValueError, match="timm has no model 'vit_bose'"):
        TimmTeacher('vit_bose')
    with pytest.raises(ValueError, match="transformers has no class 'CLIPVision'"):
        hf_teacher('CLIPVision')
    with pytest.raises(ValueError, match='ResNetModel has no patch_size'):
        TransformersTeacher('ResNetModel', {}, IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ('package', 'teacher', 'args'),
    [
        ('timm', TimmTeacher, ('resnet10t',)),
        ('transformers', TransformersTeacher, ('Dinov2Model', {}, IMAGENET_MEAN, IMAGENET_STD)),
    ],
)
def test_missing_package_is_one_line_that_says_what_to_install(package, teacher, args, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'needs {package}: pip install {package}, or mmbeit\[teachers\]'):
        teacher(*args)
