// Clients of a running fleet. scripts/conformance.sh starts it and says where it is.
import OpenAI from "openai";

export const model = process.env.SHOAL_MODEL ?? "smollm2";

function clientOf(variable) {
  const url = process.env[variable];
  if (!url) throw new Error(`${variable} is not set; run scripts/conformance.sh`);
  // The suite looks at single answers, so the SDK must not hide one behind a retry.
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 60_000 });
}

export const client = clientOf("SHOAL_URL");
/** A gateway that admits one request at a time. */
export const narrow = clientOf("SHOAL_NARROW_URL");
/** A gateway without engines. */
export const empty = clientOf("SHOAL_EMPTY_URL");

export async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? chunk.choices[0]?.text ?? "";
  return text;
}
