import assert from "node:assert/strict";
import { test } from "node:test";
import { client, model, textOf } from "./fleet.js";

const messages = [{ role: "user", content: "Name three fish." }];
const ask = (options = {}) =>
  client.chat.completions.create({ model, messages, max_tokens: 24, temperature: 0, ...options });

test("the served model is listed and found by its name", async () => {
  const listed = await client.models.list();
  assert.deepEqual(listed.data.map((entry) => entry.id), [model]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("an answer has a text, a reason and a usage", async () => {
  const answer = await ask();
  assert.ok(answer.choices[0].message.content);
  assert.match(answer.choices[0].finish_reason, /^(stop|length)$/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("the streamed text is the whole text", async () => {
  const whole = (await ask()).choices[0].message.content;
  assert.equal(await textOf(await ask({ stream: true })), whole);
});

test("a stream ends with its usage when asked", async () => {
  const chunks = [];
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    chunks.push(chunk);
  }
  const last = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens > 0);
});

test("the stream helper of the SDK collects the final message", async () => {
  const runner = client.chat.completions.stream({ model, messages, max_tokens: 12, temperature: 0 });
  const final = await runner.finalChatCompletion();
  assert.ok(final.choices[0].message.content);
});

test("a stop string ends the text and is not in it", async () => {
  const whole = (await ask()).choices[0].message.content;
  const middle = Math.floor(whole.length / 2);
  const stop = whole.slice(middle, middle + 4);
  const choice = (await ask({ stop })).choices[0];
  assert.equal(choice.message.content, whole.slice(0, whole.indexOf(stop)));
  assert.equal(choice.finish_reason, "stop");
});

test("logprobs name each token and its runners-up", async () => {
  const answer = await ask({ logprobs: true, top_logprobs: 2, max_tokens: 5 });
  const { content } = answer.choices[0].logprobs;
  assert.equal(content.length, answer.usage.completion_tokens);
  for (const token of content) assert.equal(token.top_logprobs[0].token, token.token);
});

test("n choices differ, and a seed repeats them", async () => {
  const options = { n: 3, temperature: 1.2, seed: 7 };
  const texts = async () => (await ask(options)).choices.map((choice) => choice.message.content);
  const first = await texts();
  assert.equal(first.length, 3);
  assert.ok(new Set(first).size > 1);
  assert.deepEqual(await texts(), first);
});

test("a JSON schema is followed", async () => {
  const schema = {
    type: "object",
    properties: { legs: { type: "integer", minimum: 0, maximum: 8 }, kind: { enum: ["fish", "bird"] } },
    required: ["legs", "kind"],
    additionalProperties: false,
  };
  const answer = await ask({
    response_format: { type: "json_schema", json_schema: { name: "animal", schema } },
    max_tokens: 80,
  });
  const value = JSON.parse(answer.choices[0].message.content);
  assert.deepEqual(Object.keys(value).sort(), ["kind", "legs"]);
  assert.ok(["fish", "bird"].includes(value.kind) && value.legs >= 0 && value.legs <= 8);
});

test("a required tool is called with arguments of its schema", async () => {
  const parameters = {
    type: "object",
    properties: { city: { type: "string", maxLength: 20 } },
    required: ["city"],
    additionalProperties: false,
  };
  const answer = await ask({
    messages: [{ role: "user", content: "What is the weather in Paris?" }],
    tools: [{ type: "function", function: { name: "get_weather", parameters } }],
    tool_choice: "required",
    max_tokens: 120,
  });
  const [choice] = answer.choices;
  assert.equal(choice.finish_reason, "tool_calls");
  assert.equal(choice.message.tool_calls[0].function.name, "get_weather");
  assert.equal(typeof JSON.parse(choice.message.tool_calls[0].function.arguments).city, "string");
});
