// Opens index.html of a folder in Chromium, served from an origin of its own, and prints the text that its code puts there. Arguments: the folder and the
// browser's program.
"use strict";
const fs = require("fs");
const http = require("http");
const path = require("path");
const { chromium } = require("playwright-core");

const [folder, executablePath] = process.argv.slice(2);

async function main() {
  const server = http.createServer((request, response) => {
    const name = request.url === "/" ? "index.html" : path.basename(request.url), file = path.join(folder, name);
    const there = fs.existsSync(file);
    response.writeHead(there ? 200 : 404, { "content-type": name.endsWith(".js") ? "text/javascript" : "text/html" }).end(there ? fs.readFileSync(file) : "");
  });
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
  try {
    const page = await browser.newPage();
    page.on("pageerror", error => console.error(String(error)));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.waitForFunction(() => document.body.innerText.trim() !== "", undefined, { timeout: 20000 });
    console.log(await page.evaluate(() => document.body.innerText.trim()));
  } finally {
    await browser.close();
    server.close();
  }
}

main().catch(error => {
  console.error(error);
  process.exitCode = 1;
});
