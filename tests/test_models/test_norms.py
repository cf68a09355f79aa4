import torch
import torch.multiprocessing as mp
from builders import randomize
from torch import nn

from mmbeit.models.norms import CPUSyncBN

NUM_PROCESSES = 2


def step(norm, x, target):
    """A training step, in which the norm is followed by something that mixes its channels."""
    x = x.clone().requires_grad_()
    out = norm(x)
    (out * target).sum().backward()
    gradients = torch.stack([p.grad for p in norm.parameters()])
    return out.detach(), x.grad, gradients, torch.stack([norm.running_mean, norm.running_var])


def process(rank, folder):
    torch.set_num_threads(1)  # those of the process that this one is a fork of are not here: it would wait for them
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=NUM_PROCESSES
    )
    given = torch.load(f'{folder}/given.pt')
    norm = CPUSyncBN(5).train()
    norm.load_state_dict(given['state'])
    results = step(norm, *(given[key][rank::NUM_PROCESSES] for key in ('x', 'target')))
    torch.save((results, norm.eval()(given['x'])), f'{folder}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_normalise_as_one_that_has_all_images(tmp_path):
    norm = randomize(nn.BatchNorm2d(5)).train()
    given = dict(state=norm.state_dict(), x=torch.randn(4, 5, 3, 2) + 2, target=torch.randn(4, 5, 3, 2))
    torch.save(given, tmp_path / 'given.pt')
    out, image_gradient, gradients, running = step(norm, given['x'], given['target'])
    mp.start_processes(process, (str(tmp_path),), NUM_PROCESSES, start_method='fork')
    found = [torch.load(tmp_path / f'{rank}.pt') for rank in range(NUM_PROCESSES)]
    for rank, ((out_, image_gradient_, _, running_), evaluated) in enumerate(found):
        torch.testing.assert_close(out_, out[rank::NUM_PROCESSES])
        torch.testing.assert_close(image_gradient_, image_gradient[rank::NUM_PROCESSES])
        torch.testing.assert_close(running_, running)
        torch.testing.assert_close(evaluated, norm.eval()(given['x']))
    torch.testing.assert_close(sum(results[2] for results, _ in found), gradients)  # which DDP averages


def test_one_process_has_the_norm_of_pytorch():
    theirs = randomize(nn.BatchNorm2d(5)).train()
    ours = CPUSyncBN(5).train()
    ours.load_state_dict(theirs.state_dict())
    x, target = torch.randn(4, 5, 3, 2), torch.randn(4, 5, 3, 2)
    for found, expected in zip(step(ours, x, target), step(theirs, x, target), strict=True):
        assert torch.equal(found, expected)
