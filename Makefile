# The targets are the stages of CI. Each is a script of its own name in scripts/.
.DEFAULT_GOAL := help
.PHONY: help build demo demo-k8s test e2e faults lint gitops bench bench-operator soak images cluster cluster-down kind gpu-test gpu-bench clean distclean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile everything in the release profile
	cargo build --release --locked --workspace

demo: ## start prefill, decode and gateway, answer one chat, print figures, stop; KEEP=1 leaves it serving
	@KEEP="$(KEEP)" scripts/demo.sh

demo-k8s: build ## the same in a real Kubernetes on this machine, by the commands of the README; KEEP=1 leaves it up
	@KEEP="$(KEEP)" scripts/demo-k8s.sh

test: ## lint, unit tests, end-to-end tests with a real model, GitOps, OpenAI SDK conformance; SHOAL_REQUIRE_CLUSTER=1: also e2e and faults
	@scripts/test.sh

e2e: ## tests of the operator in a real Kubernetes cluster; TESTS= names of tests, KEEP=1 leaves the cluster up
	@KEEP="$(KEEP)" scripts/e2e.sh $(TESTS)

faults: ## the operator killed, cut off or refused at each of its writes; ALL=1 every fault at every write, PLAN= some
	@ALL="$(ALL)" PLAN="$(PLAN)" KEEP="$(KEEP)" scripts/faults.sh

lint: ## format, clippy, licences, shell scripts, documentation, chart, alerts and dashboards, every crate alone
	@scripts/lint.sh

gitops: ## what Argo CD's health check and kstatus say of objects as the operator writes them
	@scripts/gitops.sh

bench: ## figures against llama.cpp and against the machine's own limits, each as a ratio
	@scripts/bench.sh

bench-operator: ## the operator with 1,000 instances and 2,000 clusters on fake nodes; INSTANCES=, CLUSTERS=, QUIET= seconds
	@INSTANCES="$(INSTANCES)" CLUSTERS="$(CLUSTERS)" QUIET="$(QUIET)" KEEP="$(KEEP)" scripts/bench-operator.sh

soak: ## mixed load at the highest sustained rate; DURATION= seconds, default 1800
	@DURATION="$(DURATION)" scripts/soak.sh

images: build ## container images of all programs, and what each is made of, in target/images; needs no Docker; MODEL= file to put in
	@MODEL="$(MODEL)" scripts/images.sh

cluster: ## a real two-node Kubernetes cluster on this machine, without Docker; cluster-down stops it
	@scripts/cluster.sh up

cluster-down: ## stop that cluster; nothing of it is left
	@scripts/cluster.sh down

kind: images ## the same on a machine that has Docker and kind: two nodes, images loaded
	@scripts/kind.sh

gpu-test: ## on a machine with a GPU: kernels against f64, decoder against the CPU's oracle
	@scripts/gpu-test.sh

gpu-bench: ## on a machine with a GPU: decode and prefill times beside the machine's floor; MODEL= shape
	@MODEL="$(MODEL)" scripts/gpu-bench.sh

clean: ## remove what was compiled; models and tools stay in the cache
	cargo clean

distclean: clean cluster-down ## also remove the cache of models, tools and yardsticks
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/shoal"
