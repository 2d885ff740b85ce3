"""dermaseg beside what a user would take instead: seconds a step, and seconds to a given accuracy.

    python -m benchmarks.peers.steps --output peers-steps
    python -m benchmarks.peers.time_to_quality --data ham10000 --output peers-quality --minutes 20

Run both from the repository's root. A library that is missing or does not build becomes a row that says so, so the commands
work with dermaseg alone. All peers, in a virtual environment of their own (Linux; PyTorch's index for its CPU builds):

    python -m venv peers && . peers/bin/activate
    pip install ".[export,jax]"
    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    pip install --no-deps monai segmentation_models_pytorch timm "torchvision==0.28.*" medicai keras-unet-collection
    pip install huggingface-hub safetensors tqdm pyyaml nibabel omegaconf pandas typeguard

`--no-deps` keeps pip from replacing the CPU build of PyTorch by one for GPUs. segmentation_models_pytorch imports torchvision,
whose compiled operators do not load beside a CPU build of another origin. Two of them are then declared, without code, so that
its Python part imports; no network measured here calls them. `torch.compile` needs a C++ compiler.
"""
