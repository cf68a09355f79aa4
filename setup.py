"""Packaging. A wheel carries configs, tools and the model index under `mmbeit/.mim`, where mim and mmbeit look."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
EXTRAS = {
    'seg': ['onedl-mmsegmentation>=1.4.2,<1.5'],
    'hub': ['huggingface_hub'],  # for hf://owner/name
    'text': ['sentencepiece'],  # of BEiT-3; transformers' tokenizer no longer reads the official file
    'captions': ['pycocoevalcap'],  # BLEU, CIDEr and others; what Java they need comes with it, Java itself does not
    'shards': ['webdataset'],  # web-scale pairs
    'teachers': ['timm', 'transformers'],  # of VQ-KD
    'tracking': ['tensorboard'],
    # Outside of mim's own pins the resolver walks through thirty releases of openxlab.
    'mim': ['onedl-mim==0.5.1', 'openxlab==0.0.11', 'opendatalab==0.0.10'],
    'quickstart': ['scikit-learn', 'sentencepiece'],
    'test': [
        'pytest',
        'ruff',
        'scikit-learn',
        'sentencepiece',
        'pycocoevalcap',
        'timm',
        'transformers',
        'webdataset',
        'DALL-E',
        'attrs',
    ],
}


def copy_resources(target: Path) -> None:
    """Copy what is outside of the package."""
    for name in ('configs', 'tools'):
        shutil.copytree(ROOT / name, target / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('metafile.yml', 'model-index.yml'):
        shutil.copy(ROOT / name, target / name)


class BuildWithResources(build_py):
    """Adds `mmbeit/.mim` to a wheel; an editable install uses the checkout itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copy_resources(Path(self.build_lib, 'mmbeit', '.mim'))


class WheelForMim(bdist_wheel):
    """Adds `.mim` to the metadata of a wheel, too.

    onedl-mim takes the folder of the first installed file for the package, which is the metadata's: `mmbeit-` sorts
    before `mmbeit/`. So it looks for tools and configs there.
    """

    def write_wheelfile(self, wheelfile_base: str, *args, **kwargs) -> None:
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        if 'editable_wheel' not in self.distribution.commands:
            copy_resources(Path(wheelfile_base, '.mim'))


version = {}
exec((ROOT / 'mmbeit' / 'version.py').read_text(), version)

setup(
    name='mmbeit',
    version=version['__version__'],
    description='BEiT, BEiT v2 and BEiT-3 for OpenMMLab: pretraining, tokenizers, fine-tuning, checkpoints',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmbeit', 'mmbeit.*']),
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.4',
        'torchvision',
        'numpy>=2',
        'scipy>=1.14',  # mmpretrain needs it and does not say so
        'Pillow',
        'rich',
        'safetensors',
        'filelock',  # two runs that want the same weights download them once
        'matplotlib',
        # Patch releases of these have removed public names.
        'onedl-mmengine>=0.10.12,<0.11',
        'onedl-mmcv>=2.3.6,<2.4',
        'onedl-mmpretrain>=1.3.6,<1.4',
    ],
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildWithResources, 'bdist_wheel': WheelForMim},
)
