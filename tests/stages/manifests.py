#!/usr/bin/env python3
"""Looks at what k8s/, Dockerfile and compose.yaml say, as far as that can be done without a cluster.

    manifests.py --settings README.md [--binary numgen] OVERLAY=RENDERED.yaml ...

Every object is validated against the schemas of the oldest and the newest Kubernetes that are promised (kubernetes-validate carries
them), the two kinds of the Prometheus operator against crds.json beside this file, and all of it together against
what numgen needs: `faults_of` has one function for each kind of promise. At the end each of these is shown a manifest
that breaks it, and has to say so.
"""

import argparse
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = ("1.30", "1.37")
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
CRDS = json.loads((HERE / "crds.json").read_text())
CLUSTER_WIDE = {"Namespace"}
# What an operator makes by hand, as docs/deploy.md says.
MADE_BY_HAND = {"numgen": {"jwt-secret", "redis-url", "database-url", "postgres-password"}, "numgen-tls": set()}
# Nodes that take over from killed ones need an ID, too.
SPARE_WORKERS = 8


class Rendered:
    """The objects of an overlay, and how they refer to each other."""

    def __init__(self, name, documents, settings):
        self.name, self.documents, self.settings = name, documents, settings

    def of(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def named(self, kind, name):
        return next((document for document in self.of(kind) if document["metadata"]["name"] == name), None)

    def workloads(self):
        """Each pod template with the name of its owner."""
        for document in self.of("StatefulSet", "Deployment", "DaemonSet", "Job"):
            yield document["metadata"]["name"], document["spec"]["template"]

    def pods_of(self, selector):
        wanted = selector.get("matchLabels", selector)
        return [template for _, template in self.workloads()
                if wanted and all(template["metadata"]["labels"].get(key) == value for key, value in wanted.items())]

    def environment(self, container):
        """What the process sees: ConfigMaps first, then its own entries."""
        values = {}
        for source in container.get("envFrom", []):
            config = self.named("ConfigMap", source.get("configMapRef", {}).get("name"))
            values.update((config or {}).get("data", {}))
        for entry in container.get("env", []):
            values[entry["name"]] = entry.get("value")
        return values

    def numgen(self):
        template = self.named("StatefulSet", "numgen")["spec"]["template"]
        return template, template["spec"]["containers"][0]


def ports_of(template):
    return {port.get("name"): port["containerPort"]
            for container in template["spec"]["containers"] for port in container.get("ports", [])}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def label(document):
    return f"{document['kind']}/{document['metadata']['name']}"


# ------------------------------------------------------------------------------------------------ promises


def schemas(rendered):
    for document in rendered.documents:
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            for error in jsonschema.Draft202012Validator(CRDS[document["kind"]]).iter_errors(document):
                yield f"{label(document)}: {error.json_path}: {error.message}"
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                yield f"{label(document)} on Kubernetes {version}: {getattr(error, 'message', error)}"


def namespaces(rendered):
    spaces = {document["metadata"]["name"] for document in rendered.of("Namespace")}
    if len(spaces) != 1:
        yield f"{len(spaces)} namespaces"
    for document in rendered.documents:
        if document["kind"] not in CLUSTER_WIDE and document["metadata"].get("namespace") not in spaces:
            yield f"{label(document)} is in no namespace of the overlay"
    for document in rendered.of("Namespace"):
        if document["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{label(document)} does not enforce pod security restricted"


def hardening(rendered):
    for name, template in rendered.workloads():
        pod = template["spec"]
        security = pod.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            yield f"{name} may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name} has no seccomp profile RuntimeDefault"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name} gets a token of the Kubernetes API"
        if any(pod.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name} shares the machine's network or processes"
        if any("hostPath" in volume for volume in pod.get("volumes", [])):
            yield f"{name} mounts a path of the machine"
        for container in pod["containers"] + pod.get("initContainers", []):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{name} may gain privileges"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{name} can write its root file system"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name} has capabilities"


def images_and_resources(rendered):
    for name, template in rendered.workloads():
        for container in template["spec"]["containers"]:
            if not re.search(r":[\w.-]*\d[\w.-]*$|@sha256:[0-9a-f]{64}$", container["image"]):
                yield f"{name}: image {container['image']} has no version"
            for bound in ("requests", "limits"):
                if set(container.get("resources", {}).get(bound, {})) < {"cpu", "memory"}:
                    yield f"{name} has no {bound} for cpu and memory"


def settings(rendered):
    for name, template in rendered.workloads():
        for container in template["spec"]["containers"]:
            for variable in rendered.environment(container):
                if variable.startswith("NUMGEN_") and variable not in rendered.settings:
                    yield f"{name}: {variable} is no setting of numgen"


def secrets(rendered):
    for document in rendered.of("Secret"):
        yield f"{label(document)} is in the repository"
    for document in rendered.documents:
        if re.search(r"://[^/\s\"@]*:[^/\s\"@]+@", json.dumps(document)):
            yield f"{label(document)} has a URL with a password"
    for name, template in rendered.workloads():
        for container in template["spec"]["containers"]:
            for variable, value in rendered.environment(container).items():
                if re.search(r"SECRET|PASSWORD|TOKEN", variable) and value and not variable.endswith("_FILE"):
                    yield f"{name}: {variable} has its value in the manifest"


def references(rendered):
    for name, template in rendered.workloads():
        pod = template["spec"]
        account = pod.get("serviceAccountName")
        if account and not rendered.named("ServiceAccount", account):
            yield f"{name} refers to ServiceAccount/{account}"
        claims = {claim["metadata"]["name"] for owner in rendered.of("StatefulSet") if owner["metadata"]["name"] == name
                  for claim in owner["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | claims
        wanted = [(volume["secret"]["secretName"], {item["key"] for item in volume["secret"].get("items", [])})
                  for volume in pod.get("volumes", []) if "secret" in volume]
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{name} mounts {mount['name']}, which is no volume"
            for source in container.get("envFrom", []):
                if not rendered.named("ConfigMap", source["configMapRef"]["name"]):
                    yield f"{name} refers to ConfigMap/{source['configMapRef']['name']}"
            wanted += [(reference["name"], {reference["key"]}) for entry in container.get("env", [])
                       if (reference := entry.get("valueFrom", {}).get("secretKeyRef"))]
        for secret, keys in wanted:
            if secret not in MADE_BY_HAND or not keys <= MADE_BY_HAND[secret]:
                yield f"{name} refers to {sorted(keys)} of Secret/{secret}, which docs/deploy.md does not make"
    for owner in rendered.of("StatefulSet"):
        service = rendered.named("Service", owner["spec"]["serviceName"])
        if not service:
            yield f"{label(owner)} has no service {owner['spec']['serviceName']}"
    for ingress in rendered.of("Ingress"):
        hosts = {rule["host"] for rule in ingress["spec"]["rules"]}
        if hosts != {host for tls in ingress["spec"].get("tls", []) for host in tls["hosts"]}:
            yield f"{label(ingress)} serves hosts without TLS"
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = rendered.named("Service", backend["name"])
                names = {port["name"] for port in service["spec"]["ports"]} if service else set()
                if backend["port"].get("name") not in names:
                    yield f"{label(ingress)} leads to {backend}, which is not there"


def ports(rendered):
    template, container = rendered.numgen()
    environment, open_ports = rendered.environment(container), ports_of(template)
    for variable, port in (("NUMGEN_LISTEN", "http"), ("NUMGEN_ADMIN_LISTEN", "admin")):
        if environment.get(variable) != f"0.0.0.0:{open_ports.get(port)}":
            yield f"{variable} is {environment.get(variable)}, and port {port} is {open_ports.get(port)}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = "/readyz" if probe == "readinessProbe" else "/livez"
        if container.get(probe, {}).get("httpGet") != {"path": path, "port": "admin"}:
            yield f"{probe} does not ask {path} of the admin listener"
    for service in rendered.of("Service"):
        pods = rendered.pods_of(service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            if len(pods) != 1 or port["targetPort"] not in ports_of(pods[0]):
                yield f"{label(service)}: port {port['name']} leads nowhere"
    for policy in rendered.of("NetworkPolicy"):
        selected = policy["spec"]["podSelector"]
        known = set().union(*(ports_of(pod) for pod in (rendered.pods_of(selected) or [t for _, t in rendered.workloads()])))
        for rule in policy["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                if port["port"] not in known:
                    yield f"{label(policy)}: port {port['port']} is none of the pods'"
    for monitor in rendered.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [service for service in rendered.of("Service") if wanted <= service["metadata"].get("labels", {}).items()]
        for endpoint in monitor["spec"]["endpoints"]:
            if len(services) != 1 or endpoint["port"] not in {port["name"] for port in services[0]["spec"]["ports"]}:
                yield f"{label(monitor)}: port {endpoint['port']} is in {len(services)} services"


def operation(rendered):
    template, container = rendered.numgen()
    environment = rendered.environment(container)
    stateful = rendered.named("StatefulSet", "numgen")["spec"]
    leaving = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needed = leaving + seconds(environment["NUMGEN_SHUTDOWN_GRACE"]) + 10
    if leaving < 5 or template["spec"].get("terminationGracePeriodSeconds", 30) < needed:
        yield f"a pod is killed before it has drained: it needs {needed} s"
    if template["spec"].get("enableServiceLinks") is not False:
        yield "Kubernetes injects NUMGEN_ variables for the service numgen"
    claims = {claim["metadata"]["name"] for claim in stateful.get("volumeClaimTemplates", [])}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    home = next((name for path, name in mounts.items() if environment["NUMGEN_DATA_DIR"].startswith(path + "/")), None)
    if home not in claims:
        yield "the data directory does not survive the pod"
    if stateful.get("persistentVolumeClaimRetentionPolicy", {}).get("whenScaled", "Retain") != "Retain":
        yield "scaling down deletes data directories"
    if "replicas" in stateful:
        yield "applying the manifest resets what the autoscaler has decided"
    name = next((entry for entry in container["env"] if entry["name"] == "NUMGEN_NODE_NAME"), {})
    if "valueFrom" not in name and "$(POD_NAME)" not in name.get("value", ""):
        yield "nodes share a name"
    scaler = rendered.named("HorizontalPodAutoscaler", "numgen")
    workers = 2 ** int(environment["NUMGEN_SNOWFLAKE_LAYOUT"].split("/")[2])
    if scaler is None or scaler["spec"]["scaleTargetRef"]["kind"] != "StatefulSet":
        yield "no autoscaler for the StatefulSet"
    elif scaler["spec"]["maxReplicas"] > workers - SPARE_WORKERS:
        yield f"the autoscaler goes up to {scaler['spec']['maxReplicas']}, and there are {workers} worker IDs"
    elif rendered.name != "dev" and scaler["spec"]["minReplicas"] < 3:
        yield "one node that leaves takes more than a third with it"
    budget = rendered.named("PodDisruptionBudget", "numgen")
    if budget is None or budget["spec"].get("maxUnavailable") != 1 or not rendered.pods_of(budget["spec"]["selector"]):
        yield "no budget for disruptions"
    spread = {spread["topologyKey"]: spread for spread in template["spec"].get("topologySpreadConstraints", [])}
    if set(spread) != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} or len(spread) != \
            len(template["spec"]["topologySpreadConstraints"]):
        yield "nodes are not spread over machines and zones, each once"
    if any(not rendered.pods_of(constraint["labelSelector"]) for constraint in spread.values()):
        yield "a constraint of the spread selects other pods"
    policy = rendered.named("NetworkPolicy", "numgen")
    if policy is None or set(policy["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
        yield "the network is open"


def monitoring(rendered):
    if rendered.name == "dev":
        return
    rules = rendered.named("PrometheusRule", "numgen")
    if rules is None or not rendered.of("ServiceMonitor"):
        yield "nothing is scraped or watched"
        return
    files = (ROOT / "prometheus" / name for name in ("rules.yaml", "alerts.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    if rules["spec"]["groups"] != groups:
        yield "PrometheusRule and prometheus/{rules,alerts}.yaml differ: tests/stages/rules.sh copies one into the other"


PROMISES = [schemas, namespaces, hardening, images_and_resources, settings, secrets, references, ports, operation, monitoring]


def faults_of(rendered):
    return [f"{promise.__name__}: {fault}" for promise in PROMISES for fault in promise(rendered)]


# ------------------------------------------------------------------------------------------------ the binary's own word


def accepted(rendered, binary):
    """numgen itself reads these settings. Stores are away, so the exit code is 1; 2 is a setting that it does not take."""
    _, container = rendered.numgen()
    with tempfile.TemporaryDirectory() as folder:
        written = {"jwt-secret": "x" * 32, "redis-url": "redis://127.0.0.1:1", "database-url": "postgres://numgen@127.0.0.1:1/numgen"}
        for name, text in written.items():
            pathlib.Path(folder, name).write_text(text)
        environment = {"NUMGEN_STORAGE_TIMEOUT_MS": "500"}
        for name, value in rendered.environment(container).items():
            # What Kubernetes fills in: the name of the pod, and references to earlier variables.
            value = "numgen-0" if value is None else re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], value)
            environment[name] = value.replace("/run/secrets/numgen", folder).replace("/var/lib/numgen", folder)
        done = subprocess.run([binary, "check"], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode not in (0, 1) or "configuration" in done.stdout or "profile         full" not in done.stdout:
            yield f"numgen check ended with {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}"


# ------------------------------------------------------------------------------------------------ several data centres


def data_centres(all_rendered):
    settings_of = {}
    for rendered in all_rendered:
        if rendered.name.startswith("dc-"):
            _, container = rendered.numgen()
            settings_of[rendered.name] = rendered.environment(container)
    ids = [environment.get("NUMGEN_DATACENTER_ID") for environment in settings_of.values()]
    counts = {environment.get("NUMGEN_DATACENTERS") for environment in settings_of.values()}
    if len(ids) < 2 or len(set(ids)) != len(ids) or counts != {str(len(ids))} or any(int(i) >= len(ids) for i in ids):
        yield f"data centres {ids} of {counts}"
    own = {"NUMGEN_DATACENTER_ID", "NUMGEN_NODE_NAME", "POD_NAME"}
    shared = [{name: value for name, value in environment.items() if name not in own} for environment in settings_of.values()]
    if any(settings != shared[0] for settings in shared):
        yield "data centres differ in more than their ID"
    names = {environment.get("NUMGEN_NODE_NAME") for environment in settings_of.values()}
    if len(names) != len(ids):
        yield "nodes of different data centres have the same names"


# ------------------------------------------------------------------------------------------------ Docker


def compose(text, known):
    document = yaml.safe_load(text)
    for name, service in document["services"].items():
        if not re.search(r":v?\d[\w.-]*$", service.get("image", "")):
            yield f"{name}: image {service.get('image')} has no version"
        for variable in service.get("environment", {}):
            if variable.startswith("NUMGEN_") and variable not in known:
                yield f"{name}: {variable} is no setting of numgen"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name}: port {port} is open to everybody"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and (ROOT / source).parent.exists() and not (ROOT / source).exists():
                yield f"{name}: {source} is not there"
        if name != "numgen" and "numgen" in service.get("depends_on", []):
            yield f"{name} waits for numgen"
    if not document["networks"]["stores"]["internal"]:
        yield "stores without a password are on an open network"
    scrape = yaml.safe_load(document["configs"]["prometheus"]["content"])["scrape_configs"][0]
    if scrape["static_configs"][0]["targets"] != ["numgen:9464"]:
        yield "Prometheus does not scrape the admin listener"


def dockerfile(text, ignore, known):
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip() and not line.startswith("#")]
    last = lines[max(at for at, line in enumerate(lines) if line.startswith("FROM")):]
    for line in lines:
        if (image := re.match(r"FROM (\S+)", line)) and image[1] != "scratch" and not re.search(r":[\w.-]*\d", image[1]):
            yield f"{image[1]} has no version"
    if not any(re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", line) for line in last):
        yield "the image does not run as a numbered user"
    if not any(line.startswith("HEALTHCHECK") for line in last):
        yield "no health check"
    if not all("--locked" in line for line in lines if "cargo build" in line):
        yield "the build does not keep to Cargo.lock"
    environment = dict(re.findall(r"(NUMGEN_\w+)=(\S+)", " ".join(last)))
    yield from (f"{name} is no setting of numgen" for name in environment if name not in known)
    exposed = next((line.split()[1:] for line in last if line.startswith("EXPOSE")), [])
    if exposed != [environment["NUMGEN_LISTEN"].split(":")[1], environment["NUMGEN_ADMIN_LISTEN"].split(":")[1]]:
        yield f"ports {exposed} are not those that it listens on"
    if not ignore.startswith("#") or "\n*\n" not in ignore:
        yield ".dockerignore does not begin by leaving everything out"
    for kept in re.findall(r"^!(.*)$", ignore, re.MULTILINE):
        if not (ROOT / kept).exists():
            yield f".dockerignore keeps {kept}, which is not there"


# ------------------------------------------------------------------------------------------------ can it fail?

def _statefulset(rendered):
    return rendered.named("StatefulSet", "numgen")["spec"]


def _container(rendered):
    return rendered.numgen()[1]


def _config(rendered):
    return rendered.named("ConfigMap", _container(rendered)["envFrom"][0]["configMapRef"]["name"])["data"]


BREAKAGES = {
    "schemas": [lambda r: _statefulset(r).update(serviceNam="x"), lambda r: r.of("ServiceMonitor")[0]["spec"].pop("selector")],
    "namespaces": [lambda r: r.of("Service")[0]["metadata"].update(namespace="default")],
    "hardening": [lambda r: _container(r)["securityContext"].update(readOnlyRootFilesystem=False),
                  lambda r: _statefulset(r)["template"]["spec"]["securityContext"].pop("runAsNonRoot")],
    "images_and_resources": [lambda r: _container(r).update(image="numgen:latest"), lambda r: _container(r)["resources"].pop("limits")],
    "settings": [lambda r: _config(r).update(NUMGEN_REDDIS_URL="redis://redis")],
    "secrets": [lambda r: _config(r).update(NUMGEN_REDIS_URL="redis://:hunter2@redis"), lambda r: _config(r).update(NUMGEN_JWT_SECRET="x")],
    "references": [lambda r: r.documents.remove(r.of("ServiceAccount")[0]),
                   lambda r: r.of("Ingress")[0]["spec"]["rules"][0].update(host="plain.example.com")],
    "ports": [lambda r: _config(r).update(NUMGEN_ADMIN_LISTEN="127.0.0.1:9464"),
              lambda r: r.named("Service", "numgen")["spec"]["ports"][0].update(targetPort="https")],
    "operation": [lambda r: _statefulset(r)["template"]["spec"].update(terminationGracePeriodSeconds=20),
                  lambda r: r.of("HorizontalPodAutoscaler")[0]["spec"].update(maxReplicas=32),
                  lambda r: _statefulset(r).update(replicas=3),
                  lambda r: _config(r).update(NUMGEN_DATA_DIR="/tmp/data")],
    "monitoring": [lambda r: r.of("PrometheusRule")[0]["spec"].update(groups=[{"name": "x", "rules": []}])],
}


def blind_spots(rendered):
    for promise in PROMISES:
        for number, breakage in enumerate(BREAKAGES[promise.__name__], start=1):
            broken = Rendered(rendered.name, copy.deepcopy(rendered.documents), rendered.settings)
            breakage(broken)
            if not list(promise(broken)):
                yield f"{promise.__name__} does not notice breakage {number}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--settings", required=True, type=pathlib.Path, help="where the table of settings is")
    arguments.add_argument("--binary", help="asked whether it takes the settings")
    arguments.add_argument("overlays", nargs="+", metavar="OVERLAY=FILE")
    given = arguments.parse_args()
    table = given.settings.read_text().split("<!-- settings")[1].split("<!-- end of settings")[0]
    known = set(re.findall(r"`(NUMGEN_\w+)`", table))

    outcomes = []

    def tell(name, faults):
        faults = list(faults)
        for fault in faults:
            print(f"  {fault}")
        print(f"test manifests::{name} ... {'FAILED' if faults else 'ok'}")
        outcomes.append(not faults)

    rendered = []
    for overlay in given.overlays:
        name, _, path = overlay.partition("=")
        documents = [document for document in yaml.safe_load_all(pathlib.Path(path).read_text()) if document]
        rendered.append(Rendered(name, documents, known))
        tell(name, faults_of(rendered[-1]))
        if given.binary:
            tell(f"{name}_is_accepted_by_numgen", accepted(rendered[-1], os.path.abspath(given.binary)))
    tell("data_centres", data_centres(rendered))
    tell("compose", compose((ROOT / "compose.yaml").read_text(), known))
    tell("dockerfile", dockerfile((ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text(), known))
    tell("each_promise_can_be_broken", blind_spots(next(one for one in rendered if one.name == "prod")))
    sys.exit(0 if all(outcomes) else 1)


if __name__ == "__main__":
    main()
