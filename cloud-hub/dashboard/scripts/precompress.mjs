// Writes .br and .gz beside every compressible file of dist, after Vite has put the files on disk:
// a compressing plugin sees chunks before their preload lists are filled in, and such .br files crash.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";

const dist = fileURLToPath(new URL("../dist", import.meta.url));
const compressible = /\.(?:html|js|css|svg|json|txt|map)$/;
const smallest_bytes = 512;
const brotli = promisify(brotliCompress);
const gz = promisify(gzip);

let raw_bytes = 0;
let br_bytes = 0;
for (const entry of await readdir(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !compressible.test(entry.name)) continue;
  const path = join(entry.parentPath, entry.name);
  const body = await readFile(path);
  if (body.length < smallest_bytes) continue;
  const options = {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_SIZE_HINT]: body.length,
    },
  };
  const [small, plain] = await Promise.all([brotli(body, options), gz(body, { level: 9 })]);
  await Promise.all([writeFile(`${path}.br`, small), writeFile(`${path}.gz`, plain)]);
  raw_bytes += body.length;
  br_bytes += small.length;
}
process.stdout.write(`precompress: ${raw_bytes} bytes, ${br_bytes} as brotli\n`);
