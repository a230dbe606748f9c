"""Continue the training of the bundled weights on your own images.

Usage: python train_on_your_images.py IMAGES RUN [STEPS]

IMAGES contains images/NAME.jpg and masks/NAME.png (palette or grey: 0 is background, 1 to N are objects); more images
are better. After ctrl-C the same command continues, from the last step that is a multiple of 20. A real run takes
thousands of steps and a GPU; see docs/pages/guide/training.md.
"""

import sys
from pathlib import Path

from stmemory import StmemoryError, VOSPredictor
from stmemory.training.config import Phase, Source, TrainingConfig
from stmemory.training.loop import Trainer
from stmemory.weights import save_network
from stmemory.weights.pretrained import load_network


def main(pictures: str, run: str, steps: str | int = 300, *, size: int = 224, batch: int = 4) -> Path:
    # Each image becomes a clip: its objects move, turn and occlude each other. With five frames and three slots,
    # slots are fused.
    config = TrainingConfig(
        sources=(Source(pictures, layout="stills"),),
        phases=(Phase(steps=int(steps), size=size, frames=5, batch=batch, capacity=3, max_objects=2),),
        learning_rate=1e-4,  # lower than from scratch, because the weights are trained already
        warmup=10,
        ema=0.99,
    )
    trainer = Trainer(config, None, Path(run), workers=1)
    if not trainer.resume():
        trainer.adopt(load_network("lite").state_dict())
    for record in trainer.run(save_every=20, log_every=10):
        print(f"step {record['step']:.0f}: loss {record['cross_entropy'] + record['dice']:.3f}")
    weights = Path(run) / "weights"
    save_network(trainer.average, weights, about={"training": {"steps": trainer.step, "pictures": Path(pictures).name}})
    VOSPredictor.from_pretrained(weights)  # the exported weights load
    print(f"weights: {weights}; stmemory track CLIP --mask FIRST.png --weights {weights} -o OUT")
    return weights


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or not "".join(sys.argv[3:] or "1").isdecimal():
        raise SystemExit(__doc__)
    try:
        main(*sys.argv[1:])
    except StmemoryError as error:
        raise SystemExit(str(error)) from error
