"""What a run starts from."""

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from mmbeit.checkpoint.load import CheckpointError
from mmbeit.checkpoint.weights import put
from mmbeit.models.backbones.beit import BEiT


class StartFromCheckpoint(Hook):
    """Loads `load_from` into a model with a backbone of ours: a file of any format, whole parts, one line for the rest.

    mmengine would load what happens to fit, key by key, and warn of what does not. Other models are left to it.

    Args:
        complete: Whether everything in the model has to come from the file, as for an evaluation.
    """

    priority = 'VERY_HIGH'

    def __init__(self, complete: bool):
        self.complete = complete

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load, and leave in the checkpoint what mmengine may load again.

        Raises:
            CheckpointError: It does not fit, or is no checkpoint to resume from.
        """
        name = runner._load_from
        if runner._resume:
            if not {'meta', 'optimizer', 'message_hub'} <= checkpoint.keys():
                raise CheckpointError(
                    f'cannot resume from {name}: it holds weights only; to start from them, set load_from'
                )
            return
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        if not any(isinstance(module, BEiT) for module in model.modules()):
            return
        loaded = put(model, checkpoint, name, log=runner.logger.warning)
        if self.complete and loaded.fresh:
            raise CheckpointError(
                f'{name} does not fit this {type(model).__name__}: it has no {", ".join(loaded.fresh[:4])}'
                + ''.join(f'; its {part} is of another shape' for part in loaded.dropped[:1])
            )
        checkpoint['state_dict'] = loaded.state
