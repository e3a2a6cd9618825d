"""Runs every benchmark and prints one table: `python run.py MODEL BUILD_FOLDER LLAMA_PYTHON OUT.json`.

Each row compares two figures of the same run on the same machine, one compute thread each, so that the ratio
means something on any machine. Where both sides compute, they take turns, and each one's best turn counts: what
else the machine does can only make a turn slower.
"""

import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
PROMPT, DECODE, RUNS, TURNS = 512, 64, 3, 3


def last_json(command, **options):
    """The last line of a program's output that is a JSON object."""
    print("   running", pathlib.Path(command[0]).name, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


def row(name, ours, theirs, unit, ratio, target, met):
    return {
        "name": name,
        "ours": round(ours, 2),
        "theirs": round(theirs, 2),
        "unit": unit,
        "ratio": round(ratio, 3),
        "target": target,
        "met": met,
    }


def best(turns, key):
    return max(turn[key] for turn in turns)


def compute(model, examples, llama_python):
    ours, theirs = [], []
    sizes = [str(PROMPT), str(DECODE), str(RUNS)]
    for _ in range(TURNS):
        options = ["--threads", "1", "--prompt", sizes[0], "--decode", sizes[1], "--runs", sizes[2], "--json"]
        ours.append(last_json([examples / "throughput", model, *options]))
        theirs.append(last_json([llama_python, HERE / "llama.py", model, *sizes]))
    rows = []
    for name, key, factor in (
        ("prefill against llama.cpp", "prefill_tokens_per_second", 2),
        ("decode against llama.cpp", "decode_tokens_per_second", 1),
    ):
        a, b = best(ours, key), best(theirs, key)
        rows.append(row(name, a, b, "tokens/s", a / b, f">= {factor} x", a >= factor * b))
    one, eight = best(ours, "decode_tokens_per_second"), best(ours, "decode_batch8_tokens_per_second")
    rows.append(row("decode of 8 against 1", eight, one, "tokens/s", eight / one, ">= 2 x", eight >= 2 * one))
    return rows


def transfer(examples):
    done = last_json([examples / "transfer_throughput", "--json"])
    ours, bare = done["transfer_bytes_per_second"] / 1e9, done["bare_bytes_per_second"] / 1e9
    share = ours / bare
    return [row("transfer against a bare copy", ours, bare, "GB/s", share, ">= 0.7 x", share >= 0.7)]


def gateway(examples):
    """The median of several runs: a percentile of one short run is at the mercy of what else the machine does."""
    runs = [last_json([examples / "gateway_latency"]) for _ in range(TURNS)]
    rows = []
    for name, limit in (("p50", 1), ("p99", 5)):
        added, direct = (statistics.median(run[key] for run in runs) for key in (f"{name}_ms", f"direct_{name}_ms"))
        rows.append(row(f"gateway adds, {name}", added, direct, "ms (direct)", added / limit, f"<= {limit} ms", added <= limit))
    return rows


def tls(examples):
    """Two fleets asked in turn; the median of several runs, as for the gateway."""
    runs = [last_json([examples / "tls_latency"]) for _ in range(TURNS)]
    within, without = (statistics.median(run[f"{how}_p50_ms"] for run in runs) for how in ("tls", "plain"))
    ratio = within / without
    return [row("first token within mutual TLS, p50", within, without, "ms (without)", ratio, "<= 1.1 x", ratio <= 1.1)]


def detokenizer(examples):
    share = last_json([examples / "detokenize_throughput", "--json"])["core_share_at_10k_tokens_per_s"]
    return [row("detokenizing 10,000 tokens/s", share * 100, 100, "% of a core", share, "< 5 %", share < 0.05)]


def start(model, build):
    done = last_json([sys.executable, HERE / "start.py", model, build])
    seconds = done["first_token_seconds"]
    ready = done["ready_seconds"]
    return [row("shoal up to first token", seconds, ready, "s (ready)", seconds / 3, "<= 3 s", seconds <= 3)]


def table(rows):
    head = {"name": "", "ours": "ours", "theirs": "beside", "unit": "", "ratio": "ratio", "target": "target"}
    keys = list(head)
    lines = [[str(line[key]) for key in keys] for line in [head, *rows]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(keys))]
    for line, source in zip(lines, [None, *rows]):
        verdict = "" if source is None else "met" if source["met"] else "MISSED"
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)), verdict)


def main():
    model, build, llama_python, out = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    examples = build / "examples"
    rows = [
        *compute(model, examples, llama_python),
        *transfer(examples),
        *gateway(examples),
        *tls(examples),
        *detokenizer(examples),
        *start(model, build),
    ]
    table(rows)
    pathlib.Path(out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
