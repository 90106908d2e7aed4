// One connection to Redis with `sendCommand` as node-redis has it, and no more: never opened again, answers as text.
import { connect } from "node:net";

export function open(port) {
  const socket = connect(port, "127.0.0.1"), waiting = [];
  let left = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    left = Buffer.concat([left, chunk]);
    for (let found; (found = parsed(left, 0)); left = left.subarray(found[1])) {
      const { resolve, reject } = waiting.shift();
      found[0] instanceof Error ? reject(found[0]) : resolve(found[0]);
    }
  });
  const sendCommand = (parts) => new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    const bulk = parts.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`);
    socket.write(`*${parts.length}\r\n${bulk.join("")}`);
  });
  return { sendCommand, close: () => socket.end() };
}

// The answer at `at` and where it ends, or null where more is to come.
function parsed(bytes, at) {
  const end = bytes.indexOf("\r\n", at);
  if (end < 0) return null;
  const head = bytes.toString("utf8", at + 1, end), count = Number(head), next = end + 2;
  switch (String.fromCharCode(bytes[at])) {
    case "$":
      if (count < 0) return [null, next];
      return bytes.length < next + count + 2 ? null : [bytes.toString("utf8", next, next + count), next + count + 2];
    case "*": {
      let found = [[], next];
      for (let place = 0; place < count; place++) {
        const one = parsed(bytes, found[1]);
        if (!one) return null;
        found = [[...found[0], one[0]], one[1]];
      }
      return count < 0 ? [null, next] : found;
    }
    case "-":
      return [new Error(head), next];
    default:
      return [head, next];
  }
}
