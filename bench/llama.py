"""llama.cpp on the same file, one thread: `python llama.py MODEL PROMPT DECODE RUNS`.

The same work as the engine's own throughput example: the prompt in one batch with logits of its last token,
then greedy decoding of one sequence behind it. Prints one JSON object; each figure is the median of the runs.
"""

import ctypes
import json
import statistics
import sys
import time

import llama_cpp as llama
import numpy as np

THREADS = 1


def main() -> None:
    path = sys.argv[1]
    prompt, decode, runs = (int(value) for value in sys.argv[2:5])
    silence = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silence, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model_params = llama.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(path.encode(), model_params)
    params = llama.llama_context_default_params()
    params.n_ctx = prompt + decode + 64
    params.n_batch = params.n_ubatch = prompt
    params.n_threads = params.n_threads_batch = THREADS
    context = llama.llama_init_from_model(model, params)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    prefills, decodes = [], []
    # One run more than asked for: the first one faults the file in.
    for _ in range(runs + 1):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        began = time.perf_counter()
        token = step(context, [(i * 7919) % vocabulary for i in range(prompt)], vocabulary)
        middle = time.perf_counter()
        for _ in range(decode):
            token = step(context, [token], vocabulary)
        prefills.append(prompt / (middle - began))
        decodes.append(decode / (time.perf_counter() - middle))
    print(
        json.dumps(
            {
                "prefill_tokens_per_second": statistics.median(prefills[1:]),
                "decode_tokens_per_second": statistics.median(decodes[1:]),
                "system": llama.llama_print_system_info().decode(),
            }
        )
    )


def step(context, tokens, vocabulary):
    """Computes the tokens; returns the likeliest next one."""
    array = (llama.llama_token * len(tokens))(*tokens)
    code = llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens)))
    if code:
        sys.exit(f"llama_decode failed with {code}")
    logits = llama.llama_get_logits_ith(context, -1)
    view = np.ctypeslib.as_array(logits, shape=(vocabulary,))
    return int(view.argmax())


if __name__ == "__main__":
    main()
