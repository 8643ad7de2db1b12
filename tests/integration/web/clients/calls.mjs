// Reads calls as lines of JSON, [method, arguments], and writes what came of each as a line.
import { createInterface } from "node:readline";

async function plain(value) {
  if (value instanceof Blob) {
    const bytes = Buffer.from(await value.arrayBuffer());
    return { type: value.type, base64: bytes.toString("base64") };
  }
  return value;
}

export async function answerCalls(target) {
  for await (const line of createInterface({ input: process.stdin })) {
    const [method, args] = JSON.parse(line);
    let answer;
    try {
      answer = { value: await plain(await target[method](...args)) };
    } catch (error) {
      answer = { error: error.message };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
}
