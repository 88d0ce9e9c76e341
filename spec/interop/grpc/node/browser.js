// Runs page.js in Chromium, from a server of its own, so that every call goes to another origin. Arguments: the configuration (a JSON file), the kind of client
// (connect, text or binary: Google's in that format) and the browser's program. Prints one JSON object per case.
"use strict";
const fs = require("fs");
const http = require("http");
const path = require("path");
const { chromium } = require("playwright-core");

const [file, kind, executablePath] = process.argv.slice(2);
const config = JSON.parse(fs.readFileSync(file, "utf8"));

async function main() {
  const pages = { "/": ["text/html", "<!doctype html><title>clients</title><script src=page.js></script>"], "/page.js":
    ["text/javascript", fs.readFileSync(path.join(__dirname, "bundle.js"))] };
  const server = http.createServer((request, response) => {
    const [type, body] = pages[request.url] || ["text/plain", ""];
    response.writeHead(pages[request.url] ? 200 : 404, { "content-type": type }).end(body);
  });
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
  try {
    const page = await browser.newPage({ ignoreHTTPSErrors: true });
    page.on("pageerror", error => console.error(String(error)));
    const tools = await page.context().newCDPSession(page), versions = new Set();
    tools.on("Network.responseReceived", ({ response }) => {
      if (response.url.includes(config.rest)) versions.add(response.protocol);
    });
    await tools.send("Network.enable");
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    for (const result of await page.evaluate(([which, given]) => window.runTable(which, given), [kind, config])) console.log(JSON.stringify(result));
    console.log(JSON.stringify({ case: "version_of_http", value: [...versions] }));
  } finally {
    await browser.close();
    server.close();
  }
}

main().catch(error => {
  console.error(error);
  process.exitCode = 1;
});
