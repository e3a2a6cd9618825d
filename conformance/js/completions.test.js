import assert from "node:assert/strict";
import { test } from "node:test";
import { client, model, textOf } from "./fleet.js";

const ask = (options = {}) =>
  client.completions.create({ model, prompt: "Once upon a time", max_tokens: 16, temperature: 0, ...options });

test("a prompt is continued", async () => {
  const answer = await ask();
  assert.ok(answer.choices[0].text.startsWith(", the city of Nova Haven"));
  assert.equal(answer.usage.completion_tokens, 16);
});

test("a stream joins to the whole", async () => {
  assert.equal(await textOf(await ask({ stream: true })), (await ask()).choices[0].text);
});

test("an aborted stream is no error for the next request", async () => {
  const stream = await ask({ stream: true, max_tokens: 400, ignore_eos: true });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  assert.equal((await ask()).choices[0].finish_reason, "length");
});
