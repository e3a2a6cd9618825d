import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { client, empty, model, narrow } from "./fleet.js";

const messages = [{ role: "user", content: "hi" }];

test("a bad parameter is 400 and named", async () => {
  await assert.rejects(client.chat.completions.create({ model, messages, temperature: -1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
});

test("an unknown model is 404", async () => {
  await assert.rejects(client.chat.completions.create({ model: "gpt-17", messages }), OpenAI.NotFoundError);
});

test("a body over the limit is 413", async () => {
  const content = "x".repeat(9 << 20);
  await assert.rejects(
    client.chat.completions.create({ model, messages: [{ role: "user", content }] }),
    (error) => error.status === 413,
  );
});

test("one request too many is 429", async () => {
  const first = await narrow.completions.create({
    model, prompt: "Once", max_tokens: 400, stream: true, ignore_eos: true,
  });
  await first[Symbol.asyncIterator]().next();
  await assert.rejects(
    narrow.completions.create({ model, prompt: "Once", max_tokens: 1 }),
    OpenAI.RateLimitError,
  );
  first.controller.abort();
});

test("without engines it is 503", async () => {
  await assert.rejects(
    empty.chat.completions.create({ model, messages }),
    (error) => error instanceof OpenAI.InternalServerError && error.status === 503,
  );
});
