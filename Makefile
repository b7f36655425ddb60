# `make help` lists the targets. Everything works on a fresh Debian or Ubuntu with rustup, gcc and Python 3; `setup`
# installs what is missing there: a software Vulkan adapter, and for `web-test` a browser.

CARGO ?= cargo
# The compiler for GPUs, which needs none: the one that is named, or the one among the packages in target/venv.
NVRTC = NORMKIT_NVRTC="$${NORMKIT_NVRTC:-$$(tools/setup.sh nvrtc)}"
RELEASE = $(CARGO) run --quiet --release -p normkit-cli --
# The Python extension is built and tested by `python-test`.
TEST = $(CARGO) test --workspace --exclude normkit-python --all-features

# Where `install` puts the C interface. BUILT is a folder of libraries that are built already.
PREFIX ?= /usr/local
DESTDIR ?=
BUILT ?=

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint test capi-test adapters burn-test candle-test install cuda-compile web-test python-test wheel demo check bench bench-table mutate gpu-bundle gpu-test gpu-bench

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

setup: ## Install a software Vulkan adapter if there is no Vulkan driver, or name what to install
	@tools/setup.sh

fmt: ## Format the sources
	$(CARGO) fmt --all
	cd integrations/burn && $(CARGO) fmt
	cd integrations/candle && $(CARGO) fmt

# DOCS_RS tells burn's CUDA runtime to do without the LLVM that it would fetch to build its kernels with.
lint: ## Check the format, clippy and the documentation, warnings being errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps
	cd integrations/burn && $(CARGO) fmt --check
	cd integrations/burn && DOCS_RS=1 $(CARGO) clippy --all-targets --all-features -- -D warnings
	cd integrations/burn && DOCS_RS=1 RUSTDOCFLAGS="-D warnings" $(CARGO) doc --all-features --no-deps
	cd integrations/candle && $(CARGO) fmt --check
	cd integrations/candle && $(CARGO) clippy --all-targets -- -D warnings
	cd integrations/candle && PATH="$(CURDIR)/tools/stand_in/bin:$$PATH" CUDA_COMPUTE_CAP=80 $(CARGO) clippy --features cuda --all-targets \
		-- -D warnings
	cd integrations/candle && RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

test: setup ## Run all tests: every backend, the command, a browser, C, burn, candle, Python, the documentation's examples, the smallest build
	$(CARGO) clippy --quiet --tests --no-default-features -- -D warnings
	$(NVRTC) $(TEST)
	python3 tools/sass_test.py "$${CARGO_TARGET_DIR:-target}/tmp/cuda" "$$(tools/setup.sh cuobjdump)"
	@$(MAKE) --no-print-directory web-test
	python3 tools/resolve_test.py
	@$(MAKE) --no-print-directory burn-test
	@$(MAKE) --no-print-directory candle-test
	@$(MAKE) --no-print-directory python-test

capi-test: setup ## Test the C interface alone: programs in C and C++, installed, linked and run, and under valgrind
	$(CARGO) test -p normkit-capi --all-features

adapters: ## Build the tests of the adapters for burn and candle, and run none
	cd integrations/burn && $(CARGO) test --quiet --features ndarray,wgpu --no-run
	cd integrations/candle && $(CARGO) test --quiet --no-run

burn-test: setup ## Test the adapter for burn on the CPU and on WebGPU, and train the network of its example
	cd integrations/burn && $(CARGO) test --features ndarray,wgpu
	cd integrations/burn && $(CARGO) run --quiet --features ndarray,wgpu --example digits

candle-test: ## Test the adapter for candle, and train the network of its example
	cd integrations/candle && $(CARGO) test
	cd integrations/candle && $(CARGO) run --quiet --example digits

install: ## Install the C interface: normkit.h, libnormkit.so, libnormkit.a and normkit.pc, to DESTDIR/PREFIX (/usr/local)
	$(if $(BUILT),,$(CARGO) build --release -p normkit-capi)
	capi/install.sh "$(or $(BUILT),$(or $(CARGO_TARGET_DIR),target)/release)" "$(PREFIX)" "$(DESTDIR)"

cuda-compile: ## Compile the CUDA kernels of all tests for four generations of GPUs and look for spills; takes long
	$(NVRTC) NORMKIT_TEST_KERNELS=all $(CARGO) test --features check,cuda --test cuda_compile -- --nocapture

web-test: ## Run the shaders in a headless browser and check the results; installs Chromium or names it
	@tools/setup.sh browser
	$(TEST) --quiet --no-run
	python3 tools/web_test.py "$(abspath $(or $(CARGO_TARGET_DIR),target))/debug/normkit"

python-test: ## Build the Python package as its users do, and run its tests; installs PyTorch and others into target/venv
	venv=$$(tools/setup.sh venv) && "$$venv/bin/pip" install --quiet --disable-pip-version-check ./python \
		&& "$$venv/bin/pytest" -c python/pyproject.toml python/tests

wheel: ## Build a wheel for CPython 3.10 and later on Linux with glibc 2.28 or later, into target/wheels
	venv=$$(tools/setup.sh venv) && cd python && PATH="$$venv/bin:$$PATH" maturin build --release --zig \
		--compatibility manylinux_2_28 --out ../target/wheels

demo: setup ## Run the methods on a real model's activations, on every backend found
	$(RELEASE) demo

check: setup ## Compare every method, backend and dtype with the oracle
	$(RELEASE) check

bench: setup ## Run the criterion benchmarks
	$(CARGO) bench --all-features --bench row --bench fused --bench column --bench split --bench pointwise

bench-table: setup ## Print the table of speeds beside the goals
	$(RELEASE) bench --table

gpu-bundle: ## Build what gpu-test and gpu-bench run, for a machine without Rust: the folder target/gpu
	python3 tools/gpu.py bundle

gpu-test: ## On a GPU: its self-test, every property test, and compute-sanitizer (builds target/gpu where it is not there)
	python3 tools/gpu.py test

gpu-bench: ## On a GPU: speeds beside a copy and PyTorch, into benches/results
	python3 tools/gpu.py bench

mutate: setup ## Break kernels in small ways and see the tests notice each
	python3 tools/mutate.py
