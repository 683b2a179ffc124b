// Puts keys through one session, many at a time:  npm install; node puts.js HOST:PORT,... [COUNT]
import { fileURLToPath } from "node:url";
import { Session } from "./session.js";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));
const [addresses = "127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379", count = "10000"] = process.argv.slice(2);

const session = new Session(addresses.split(","), PROTOS);
const began = performance.now();
let done = 0;
async function put(number) {
  const { header } = await session.put(`node/${String(number).padStart(6, "0")}`, `value ${number}`);
  if (++done % 1000 === 0) console.log(`${done} puts, revision ${header.revision}`);
}
await Promise.all(Array.from({ length: Number(count) }, (_, number) => put(number)));
const seconds = (performance.now() - began) / 1000;
const { kvs } = await session.get("node/000000");
console.log(`${count} puts in ${seconds.toFixed(1)} s; node/000000 is ${kvs[0].value}, version ${kvs[0].version}`);
session.close();
