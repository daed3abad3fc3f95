"""``python -m benchmarks`` lists the benchmarks; ``python -m benchmarks NAME --help`` says what one of them takes."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "ops": "CPU scoring: rank count, masked top-20, early exit and threads, against torch and faiss",
    "fidelity": "verdicts at N = 1,000,000: FAISS proofs against the exact scan with early exit",
    "gpu": "the Triton ops on a CUDA device, the roofline beside each figure",
    "gpu_acceptance": "on a CUDA device, in eight minutes: compilation, tests, roofline, CPU against GPU, one run",
    "generation": "trajectories/s, against plain torch and the authors' per-row loop",
    "evaluation": "users/s of the full ranking, against torch.mm and topk",
    "update": "rsir update week by week, against runs from scratch: processor seconds and quality",
    "cold": "item vectors: what unseen and seen items gain by them, on simulated users",
    "serving": "one recommendation and a thousand, by one network and two, against plain torch",
    "service": "rsir serve under load: requests a second and p99, beside the library alone",
    "training": "a training step and an epoch, against plain packed torch",
    "bases": "the base alone: SASRec and BSARec, sampled negatives and full softmax, quality and seconds",
    "alternatives": "what a user would pick instead: popularity, item-kNN, EASE, ALS; quality and seconds, beside runs",
    "backbones": "a training step of every backbone, and with --epochs what each learns",
    "peers": "epochs and time to the same quality, against RecTools' and RecBole's SASRec",
    "loading": "seconds and peak memory of reading 10,000,000 events, format by format",
    "distributed": "generation and evaluation by two processes, against one",
    "large": "one round of generation and one evaluation over 1,000,000 items within 4 GiB",
    "scale": "hours, GPUs, bytes and money for up to a billion users, predicted; the error of predictions here",
    "rounding": "what a half-precision item table changes: lists, metrics, trajectories",
    "streaming": "a whole round of up to 5,000,000 users, each size held to a limit on memory",
    "growth": "time and memory against users, items, length, m and rounds, with fitted exponents",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("python -m benchmarks NAME [options]\n")
        for name, summary in BENCHMARKS.items():
            print(f"  {name:<14} {summary}")
        return 0
    name, *rest = arguments
    if name not in BENCHMARKS:
        print(f"benchmarks: expected one of {sorted(BENCHMARKS)}, got {name!r}", file=sys.stderr)
        return 2
    result: int = importlib.import_module(f"benchmarks.{name}").main(rest)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
