"""`python -m stmemory.training pack | clips | run | export | predict`: the commands of training."""

from stmemory.cli.train import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())
