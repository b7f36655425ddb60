// Runs exported cases on a device: see cli/src/exported.rs for the manifest's form.

// The most messages of the compiler that one error quotes.
const MESSAGES = 3;

// A message without its line breaks.
const line = (text) => text.replace(/\s+/g, " ").trim();

export class Player {
    constructor(device) {
        this.device = device;
        // Shaders and memory are shared by cases: promises by name.
        this.pipelines = new Map();
    }

    // The case's memory after it has run. Throws with everything that the browser finds wrong with the case.
    async play(item) {
        const [memory, pipelines] = await Promise.all([
            this.fetch(item.memory),
            Promise.all(item.dispatches.map((dispatch) => this.pipeline(dispatch))),
        ]);
        const result = new Uint8Array(memory);
        const staging = await this.checked(() => this.submit(item, result, pipelines));
        try {
            for (const { buffer, range } of staging) {
                await buffer.mapAsync(GPUMapMode.READ);
                const [start, end] = range;
                result.set(new Uint8Array(buffer.getMappedRange(), 0, end - start), start);
            }
        } finally {
            staging.forEach(({ buffer }) => buffer.destroy());
        }
        return result;
    }

    // Calls `work`, which must not wait, and throws what the device says about it.
    async checked(work) {
        const filters = ["internal", "out-of-memory", "validation"];
        filters.forEach((filter) => this.device.pushErrorScope(filter));
        let result, failure;
        try {
            result = work();
        } catch (error) {
            failure = error;
        }
        const errors = await Promise.all(filters.map(() => this.device.popErrorScope()));
        const messages = errors.filter(Boolean).map((error) => error.message);
        if (failure || messages.length) {
            throw new Error(line([...messages, failure?.message].filter(Boolean).join("; ")));
        }
        return result;
    }

    async fetch(path) {
        const response = await fetch(`/export/${path}`);
        if (!response.ok) {
            throw new Error(`${path}: ${response.status}`);
        }
        return response.arrayBuffer();
    }

    pipeline(dispatch) {
        const access = dispatch.storage.map(({ writable }) => (writable ? "w" : "r")).join("");
        const key = `${dispatch.shader} ${access}`;
        if (!this.pipelines.has(key)) {
            this.pipelines.set(key, this.compile(dispatch));
        }
        return this.pipelines.get(key);
    }

    async compile({ shader, entry, storage }) {
        const code = new TextDecoder().decode(await this.fetch(shader));
        let module;
        try {
            module = await this.checked(() => this.device.createShaderModule({ label: entry, code }));
        } catch (error) {
            // The error's own text is often no more than that there is one.
            throw new Error(`${entry} (${shader}): ${error.message}`);
        }
        const { messages } = await module.getCompilationInfo();
        const said = messages.slice(0, MESSAGES).map((m) => `${m.type} in line ${m.lineNum}: ${line(m.message)}`);
        if (said.length) {
            throw new Error(`${entry} (${shader}): ${said.join("; ")}`);
        }
        const types = ["uniform", ...storage.map(({ writable }) => (writable ? "storage" : "read-only-storage"))];
        const entries = types.map((type, binding) => (
            { binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } }
        ));
        const layout = await this.checked(() => this.device.createBindGroupLayout({ entries }));
        const pipelineLayout = this.device.createPipelineLayout({ bindGroupLayouts: [layout] });
        try {
            const compute = { module, entryPoint: entry };
            const descriptor = { label: entry, layout: pipelineLayout, compute };
            return { layout, pipeline: await this.device.createComputePipelineAsync(descriptor) };
        } catch (error) {
            throw new Error(`${entry} (${shader}): ${line(error.message)}`);
        }
    }

    // Enqueues the case and returns, for each buffer that holds some of the memory, a copy to be mapped.
    submit(item, memory, pipelines) {
        const { device } = this;
        const { STORAGE, COPY_SRC, COPY_DST, UNIFORM, MAP_READ } = GPUBufferUsage;
        const buffers = item.buffers.map(({ size, memory: range }) => {
            const usage = STORAGE | COPY_SRC | COPY_DST;
            const buffer = device.createBuffer({ size, usage, mappedAtCreation: true });
            if (range) {
                new Uint8Array(buffer.getMappedRange()).set(memory.subarray(...range));
            }
            buffer.unmap();
            return buffer;
        });
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        const uniforms = item.dispatches.map((dispatch, index) => {
            const words = new Uint32Array(dispatch.params);
            const uniform = device.createBuffer({ size: words.byteLength, usage: UNIFORM | COPY_DST });
            device.queue.writeBuffer(uniform, 0, words);
            const storage = dispatch.storage.map(({ buffer, offset, size }) => (
                { buffer: buffers[buffer], offset, size }
            ));
            const entries = [{ buffer: uniform }, ...storage].map((resource, binding) => ({ binding, resource }));
            const { layout, pipeline } = pipelines[index];
            pass.setPipeline(pipeline);
            pass.setBindGroup(0, device.createBindGroup({ label: dispatch.entry, layout, entries }));
            pass.dispatchWorkgroups(...dispatch.groups);
            return uniform;
        });
        pass.end();
        const staging = [];
        item.buffers.forEach(({ size, memory: range }, index) => {
            if (range) {
                const buffer = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
                encoder.copyBufferToBuffer(buffers[index], 0, buffer, 0, size);
                staging.push({ buffer, range });
            }
        });
        device.queue.submit([encoder.finish()]);
        // What is destroyed is freed once the queue is done with it.
        [...buffers, ...uniforms].forEach((buffer) => buffer.destroy());
        return staging;
    }
}
