"""Train agents: `python train.py agent=ddqn buffer=per seeds=8`; `--help` lists groups and keys.

The same as `dqn-exp train`.
"""

from dqn_exp.__main__ import main

if __name__ == "__main__":
    main("train")
