"""PyTorch's side: channels last, a fused AdamW, autocast for bfloat16, the loss on logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.learners import CLIP_NORM, labels_of
from benchmarks.peers.machine import Device
from benchmarks.peers.torch_networks import build_network

__all__ = ["TorchLearner", "overlap_crossentropy"]

_SMOOTH = 1.0


class TorchLearner:
    """A `Learner` in PyTorch; arguments are those of `build_learner`."""

    def __init__(
        self,
        contestant: Contestant,
        size: tuple[int, int],
        *,
        seed: int,
        learning_rate: float,
        weight_decay: float,
        device: Device = "cpu",
    ) -> None:
        torch.manual_seed(seed)
        torch.backends.cuda.matmul.allow_tf32 = True  # as its convolutions are computed, and JAX's
        torch.backends.cudnn.benchmark = True
        network, self._multiple, versions = build_network(contestant)
        self._device = torch.device(device)
        self.network = network.to(self._device, memory_format=torch.channels_last)
        self._dtype = torch.bfloat16 if contestant.precision == "bfloat16" else torch.float32
        self.parameters = sum(weight.numel() for weight in network.parameters())
        self.versions = {"torch": torch.__version__, **versions}
        if device == "cuda":
            self.versions["GPU"] = torch.cuda.get_device_name()
        self.forward_flops = self._count_flops(size)
        # One graph for each shape: the first shape would otherwise be compiled again, for any shape, when a second comes.
        self._run = torch.compile(self.network, dynamic=False) if contestant.engine == "compile" else self.network
        self._optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay, fused=True)

    def train(self, images: np.ndarray, masks: np.ndarray) -> float:
        """Make one step."""
        return self._step(torch.from_numpy(images), torch.from_numpy(masks)).item()

    def train_steps(self, images: np.ndarray, masks: np.ndarray, steps: int) -> None:
        """Make several steps on the same pictures; on a card from pinned memory, and waiting for the last of them alone."""
        if self._device.type == "cpu":
            for _ in range(steps):
                self.train(images, masks)
        else:
            pixels, true = (torch.from_numpy(values).pin_memory() for values in (images, masks))
            losses = [self._step(pixels, true) for _ in range(steps)]
            if losses:
                losses[-1].item()

    def _step(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        self.network.train()
        labels = torch.from_numpy(labels_of(masks.numpy()))
        logits = self._logits(images)
        loss = torch.zeros((), device=self._device)
        if "mask" in logits:
            true = masks.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float()
            loss = loss + overlap_crossentropy(true, logits["mask"]).mean()
        if "label" in logits:
            loss = loss + functional.cross_entropy(logits["label"], labels.to(self._device))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        self._optimizer.step()
        return loss

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities: of the mask where there is one; the diagnosis is computed and fetched as well."""
        self.network.eval()
        with torch.inference_mode():
            logits = self._logits(torch.from_numpy(images))
            label = torch.softmax(logits["label"], dim=1).cpu().numpy() if "label" in logits else None
            if "mask" not in logits:
                return label
            return torch.sigmoid(logits["mask"]).permute(0, 2, 3, 1).cpu().numpy()

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate of the steps to come."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def multiply(self, size: int) -> Callable[[], object]:
        """Return a function that multiplies two matrices."""
        square = torch.ones((size, size), dtype=self._dtype, device=self._device)

        def run() -> object:
            with torch.inference_mode():
                return torch.mm(square, square)[0, 0].item()  # waits for an accelerator, as a reader of the product would

        run()
        return run

    def card_memory_mb(self) -> float | None:
        """Return what PyTorch's allocator has handed out at most."""
        return torch.cuda.max_memory_allocated() / 1e6 if self._device.type == "cuda" else None

    def _logits(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        # A view: NumPy's height, width, channels is what PyTorch calls channels last.
        pixels = images.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        height, width = pixels.shape[2:]
        top, left = (-height % self._multiple) // 2, (-width % self._multiple) // 2
        below, right = -height % self._multiple - top, -width % self._multiple - left
        if below or right:
            pixels = functional.pad(pixels, (left, right, top, below), mode="reflect")
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            outputs = self._run(pixels.contiguous(memory_format=torch.channels_last))
        logits = {
            name: values.float() for name, values in (outputs if isinstance(outputs, dict) else {"mask": outputs}).items()
        }
        if "mask" in logits:
            logits["mask"] = logits["mask"][:, :, top : top + height, left : left + width]
        return logits

    def _count_flops(self, size: tuple[int, int]) -> float:
        # Hooks, not torch.utils.flop_counter, which brings another 90 MB into the process whose memory is measured.
        height, width = (side + -side % self._multiple for side in size)
        counts: list[float] = []

        def count(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            # Every input pixel of a transposed convolution meets the whole kernel, elsewhere every output pixel does.
            met = inputs[0] if isinstance(layer, torch.nn.ConvTranspose2d) else output
            counts.append(2.0 * layer.weight.numel() * met.shape[2] * met.shape[3])

        kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        hooks = [layer.register_forward_hook(count) for layer in self.network.modules() if isinstance(layer, kinds)]
        self.network.eval()
        with torch.inference_mode():
            self.network(torch.zeros(1, 3, height, width, device=self._device))
        for hook in hooks:
            hook.remove()
        return sum(counts)


def overlap_crossentropy(true: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return half the cross-entropy and half the soft Jaccard loss of each picture, as `dermaseg.losses` defines them."""
    probability = torch.sigmoid(logits)
    overlap = (true * probability).sum(dim=(1, 2, 3))
    union = true.sum(dim=(1, 2, 3)) + probability.sum(dim=(1, 2, 3)) - overlap
    jaccard = 1.0 - (overlap + _SMOOTH) / (union + _SMOOTH)
    crossentropy = functional.binary_cross_entropy_with_logits(logits, true, reduction="none").mean(dim=(1, 2, 3))
    return 0.5 * jaccard + 0.5 * crossentropy
