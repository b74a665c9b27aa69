"""What each metric is: the descriptions in TensorBoard, and the table in dqn_exp/README.md.

"mean" in brackets: the mean over the updates since the last log point.
"""

MEANINGS = {
    "train/episode_return": (
        "undiscounted return of a finished training episode, in the environment's own rewards"
    ),
    "train/episode_length": "env steps of that episode",
    "train/episode_return_mean100": (
        "mean return of the last 100 training episodes, or of all if there are fewer"
    ),
    "train/td_loss": "loss of the learning rule, before importance weights (mean)",
    "train/td_error_abs": "absolute TD error, the distance between Q(s, a) and its target (mean)",
    "train/q_mean": "Q(s, a) of the minibatch (mean)",
    "train/target_mean": "the n-step target that Q(s, a) moves to (mean)",
    "train/grad_norm": "norm of the seed's gradient before clipping (mean)",
    "train/epsilon": "probability of a random action",
    "train/temperature": (
        "temperature of the softmax policy, instead of epsilon (`exploration=boltzmann`)"
    ),
    "train/lr": "learning rate (`optim.anneal=true`)",
    "train/noise_sigma": "mean absolute sigma of noisy layers (`net=noisy_mlp`, `net=noisy_dueling`)",
    "train/target_lag": (
        "distance between target and online parameters, divided by the norm of the online ones"
    ),
    "train/dead_units": "share of the last common hidden layer that is 0 for a whole minibatch",
    "buffer/size": "transitions stored",
    "buffer/beta": "exponent of the importance weights (`buffer=per`)",
    "buffer/effective_sample_size": (
        "(sum w)^2 / sum w^2 of a minibatch's importance weights, between 1 and the batch size"
    ),
    "buffer/sample_age": "env steps since the transitions of a minibatch were stored",
    "buffer/terminal_fraction": "share of a minibatch that ends in a terminal state",
    "time/steps_per_second": "env steps per second of all seeds together, without evaluation",
    "eval/return_mean": "mean return of the greedy episodes",
    "eval/return_std": "standard deviation of these returns",
    "eval/initial_state_value": "max_a Q(s_0, a) in the first states of these episodes",
    "eval/discounted_return": "discounted return from these states, in the rewards of training",
    "eval/overestimation": (
        "`eval/initial_state_value` minus `eval/discounted_return`; above 0 is right where a "
        "time limit ends episodes"
    ),
}
# The charts of TensorBoard's CUSTOM SCALARS tab, in order: section -> chart -> tags.
CHARTS = {
    "Returns": {
        "greedy evaluation": ["eval/return_mean"],
        "training, mean of 100 episodes": ["train/episode_return_mean100"],
        "length of training episodes": ["train/episode_length"],
    },
    "Losses": {
        "TD loss": ["train/td_loss"],
        "absolute TD error": ["train/td_error_abs"],
        "gradient norm": ["train/grad_norm"],
        "dead units": ["train/dead_units"],
    },
    "Exploration": {
        "epsilon": ["train/epsilon"],
        "temperature": ["train/temperature"],
        "sigma of noisy layers": ["train/noise_sigma"],
    },
    "Values": {
        "Q(s, a) and its target": ["train/q_mean", "train/target_mean"],
        "first states: value and discounted return": [
            "eval/initial_state_value",
            "eval/discounted_return",
        ],
        "overestimation": ["eval/overestimation"],
        "distance of the target network": ["train/target_lag"],
    },
    "Buffer": {
        "size": ["buffer/size"],
        "beta": ["buffer/beta"],
        "effective sample size": ["buffer/effective_sample_size"],
        "age of samples": ["buffer/sample_age"],
        "terminal share": ["buffer/terminal_fraction"],
    },
    "Time": {"env steps per second": ["time/steps_per_second"], "learning rate": ["train/lr"]},
}
