// The page of `make web-test`: says what the browser's adapter is, runs the cases that the server exports for it, and
// sends back what they wrote. tools/web_test.py is the server.

import { Player } from "./player.js";

// Cases under way at a time: while the GPU process compiles one's shaders, another's results are on their way.
const AT_ONCE = 4;

const show = (id, text) => { document.getElementById(id).textContent = text; };

async function send(path, body) {
    const response = await fetch(path, { method: "POST", body });
    if (!response.ok) {
        throw new Error(`${path}: ${await response.text()}`);
    }
    return response;
}

async function open() {
    if (!navigator.gpu) {
        throw new Error("this browser has no WebGPU");
    }
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) {
        throw new Error("this browser's WebGPU has no adapter");
    }
    const { vendor, architecture, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
    const subgroups = adapter.features.has("subgroups");
    // Default limits: shaders that need more would not run in every browser.
    const device = await adapter.requestDevice({ requiredFeatures: subgroups ? ["subgroups"] : [] });
    const name = [vendor, architecture, description].filter(Boolean).join(" ") || "an unnamed adapter";
    const sizes = subgroups ? [subgroupMinSize, subgroupMaxSize] : null;
    show("adapter", `${name}, ${sizes ? `subgroups of ${sizes.join(" to ")}` : "no subgroups"}`);
    return { device, about: { name, browser: navigator.userAgent, subgroups: sizes } };
}

async function main() {
    const { device, about } = await open();
    let lost = null;
    device.lost.then(({ reason, message }) => { lost = `the device was lost (${reason}): ${message}`; });
    const stray = [];
    device.addEventListener("uncapturederror", ({ error }) => stray.push(error.message));

    const { cases } = await (await send("/export", JSON.stringify(about))).json();
    const player = new Player(device);
    let next = 0;
    let finished = 0;
    const work = async () => {
        while (next < cases.length) {
            const index = next++;
            // What normkit itself has refused is judged without us.
            if (cases[index].refused) {
                finished++;
                continue;
            }
            let result;
            try {
                result = await player.play(cases[index]);
            } catch (error) {
                if (lost) {
                    throw new Error(lost);
                }
                await send(`/results/${index}.error`, error.message);
                continue;
            } finally {
                show("progress", `${++finished} of ${cases.length} cases`);
            }
            await send(`/results/${index}.bin`, result);
        }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (lost || stray.length) {
        throw new Error(lost ?? `errors that belong to no case: ${stray.join("; ")}`);
    }
    show("report", await (await send("/judge", "")).text());
}

main().catch(async (error) => {
    show("report", error.message);
    await send("/failed", error.message);
});
