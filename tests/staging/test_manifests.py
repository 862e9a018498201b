"""What the manifests promise: guards, limits, safety, profiles that differ in timing only, links that resolve."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clusters import rootfs, staging_image
from harness.clusters.provider import Access
from harness.clusters.rootfs import cache_dir, read_list
from harness.clusters.staging import SECRETS, conflicts
from harness.clusters.staging_image import promtool, sources_layer
from harness.core.errors import BadInput
from harness.core.promql import placeholders, ranges
from harness.core.sense import of_run
from harness.loading import load
from harness.ports.progress import Silent

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
MINE = [MANIFESTS / name for name in ("staging", "monitoring", "overlays")]
PROFILES = ("smoke", "gameday")
TIMINGS = ("scrape_interval", "scrape_timeout", "evaluation_interval", "for", "group_wait", "group_interval")
RULES = sorted(path.name for path in (MANIFESTS / "overlays" / "smoke").glob("*.rules.yaml"))
LOWERED_MIB = 64
KEEPERS = {"llm-provider": "llm-key", "sync-gateway": "sync-signing-key"}
"""Who checks keys, and the Secret that holds them."""
Doc = dict[str, Any]


def documents() -> list[Doc]:
    return [
        doc
        for folder in (MANIFESTS / "staging", MANIFESTS / "monitoring")
        for path in sorted(folder.glob("*.yaml"))
        for doc in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def deployments() -> list[Doc]:
    return [doc for doc in documents() if doc["kind"] == "Deployment"]


def by_name(name: str) -> Doc:
    (found,) = [doc for doc in deployments() if doc["metadata"]["name"] == name]
    return found


def mib(quantity: str) -> int:
    assert quantity.endswith("Mi"), quantity
    return int(quantity.removesuffix("Mi"))


each_deployment = pytest.mark.parametrize("deployment", deployments(), ids=lambda d: d["metadata"]["name"])


def test_every_yaml_file_parses() -> None:
    paths = [path for folder in MINE for path in folder.rglob("*.yaml")]
    assert len(paths) > 10
    for path in paths:
        assert all(doc for doc in yaml.safe_load_all(path.read_text(encoding="utf-8"))), path


def test_staging_has_opted_in_and_the_instruments_have_not() -> None:
    labels = {d["metadata"]["name"]: d["metadata"]["labels"] for d in documents() if d["kind"] == "Namespace"}
    assert labels["nova-staging"]["drill.internal/opt-in"] == "true"
    assert labels["nova-staging"]["drill.internal/environment"] == "staging"
    assert "drill.internal/opt-in" not in labels["monitoring"]


@each_deployment
def test_pods_are_confined(deployment: Doc) -> None:
    spec = deployment["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is (deployment["metadata"]["name"] in KEEPERS)
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}


@each_deployment
def test_requests_leave_room_for_lowered_limits(deployment: Doc) -> None:
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        resources = container["resources"]
        assert mib(resources["requests"]["memory"]) <= mib(resources["limits"]["memory"])
        if deployment["metadata"]["name"] == "worker":
            assert mib(resources["requests"]["memory"]) <= LOWERED_MIB


def test_a_job_fits_the_normal_limit_with_room_and_not_the_lowered_one() -> None:
    (container,) = by_name("worker")["spec"]["template"]["spec"]["containers"]
    working = int({e["name"]: e["value"] for e in container["env"]}["WORKING_MIB"])
    base = 12  # MiB of an idle worker, measured; staging/README.md
    assert working > LOWERED_MIB
    assert working + base <= 0.7 * mib(container["resources"]["limits"]["memory"])


def test_a_bad_rollout_takes_three_of_five_workers() -> None:
    spec = by_name("worker")["spec"]
    assert spec["replicas"] == 5
    assert spec["strategy"] == {"rollingUpdate": {"maxUnavailable": 3, "maxSurge": 0}}
    assert spec["minReadySeconds"] >= 1


def test_only_those_who_check_keys_speak_to_the_api_server_and_each_reads_its_one_secret() -> None:
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    found = {(doc["kind"], doc["metadata"]["name"]): doc for doc in documents() if doc["kind"].endswith(kinds)}
    assert set(found) == {(kind, name) for kind in kinds for name in KEEPERS}
    for name, secret in KEEPERS.items():
        assert found["Role", name]["rules"] == [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}
        ]
        binding = found["RoleBinding", name]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", name)
        assert [(subject["kind"], subject["name"]) for subject in binding["subjects"]] == [("ServiceAccount", name)]
        (container,) = by_name(name)["spec"]["template"]["spec"]["containers"]
        assert {"name": "KEYS_SECRET", "value": secret} in container["env"]
    accounts = {
        d["metadata"]["name"]: account
        for d in deployments()
        if (account := d["spec"]["template"]["spec"].get("serviceAccountName"))
    }
    assert accounts == {name: name for name in KEEPERS}


@pytest.mark.parametrize(("name", "secret"), [("llm-adapter", "llm-key"), ("sync-issuer", "sync-signing-key")])
def test_who_shows_a_key_takes_over_the_one_that_is_made_on_deployment(name: str, secret: str) -> None:
    (container,) = by_name(name)["spec"]["template"]["spec"]["containers"]
    (key,) = [entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if "valueFrom" in entry]
    assert key["name"] == secret
    assert ("nova-staging", key["name"], key["key"]) in SECRETS
    assert key["optional"] is True


def environment(name: str) -> dict[str, str]:
    """What a Deployment's container is told, ConfigMaps included."""
    (container,) = by_name(name)["spec"]["template"]["spec"]["containers"]
    maps = {d["metadata"]["name"]: d["data"] for d in documents() if d["kind"] == "ConfigMap"}
    taken: dict[str, str] = {}
    for source in container.get("envFrom", []):
        taken |= maps[source["configMapRef"]["name"]]
    return taken | {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def test_the_declared_sync_settings_suit_the_clients_with_room() -> None:
    gateway, clients = environment("sync-gateway"), environment("sync-clients")
    assert float(gateway["HEARTBEAT_TIMEOUT_SECONDS"]) >= 3 * float(clients["PING_SECONDS"])
    assert float(gateway["RETENTION_SECONDS"]) >= 30 * float(clients["AWAY_SECONDS"])


@pytest.mark.parametrize("name", ["registry", "sync-gateway"])
def test_a_pod_that_drains_answers_prometheus_for_as_long_as_one_of_the_api(name: str) -> None:
    drain = float(environment(name)["DRAIN_SECONDS"])
    api = by_name("api")["spec"]["template"]["spec"]["containers"][0]
    assert drain >= api["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert by_name(name)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= drain + 5


@pytest.mark.parametrize("name", ["prometheus.yaml", "alertmanager.yaml", "kustomization.yaml", *RULES])
def test_profiles_differ_in_timing_only(name: str) -> None:
    def without_timing(profile: str) -> str:
        text = (MANIFESTS / "overlays" / profile / name).read_text(encoding="utf-8")
        text = re.sub(rf"^(\s*(?:{'|'.join(TIMINGS)}):) \w+$", r"\1 TIME", text, flags=re.MULTILINE)
        return text.partition("\n")[2] if name == "kustomization.yaml" else text  # its first line names the profile

    assert without_timing("smoke") == without_timing("gameday")


def prometheus(profile: str) -> Doc:
    path = MANIFESTS / "overlays" / profile / "prometheus.yaml"
    config: Doc = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_ranges_hold_enough_scrapes_of_their_profile(path: Path) -> None:
    """Of the experiments' queries and of the rules that are expected to fire: a rate of one sample is nothing."""
    one = load(path).experiment
    for profile in one.profiles:
        config, tuned = prometheus(profile), one.tuned(profile)
        scrape = max(seconds(job.get("scrape_interval", "0s")) for job in [config["global"], *config["scrape_configs"]])
        asked = {".".join(map(str, loc)): query for loc, query in of_run(tuned)}
        for name in RULES:
            groups = yaml.safe_load((MANIFESTS / "overlays" / profile / name).read_text(encoding="utf-8"))["groups"]
            asked |= {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
        assert not {where for where, query in asked.items() if placeholders(query)}
        short = {where for where, query in asked.items() for r in ranges(query) if r.seconds < r.samples * scrape}
        assert not short, (profile, scrape)


def test_ranges_of_experiments_are_seen() -> None:
    one = load(ROOT / "experiments" / "stale-cursor.yaml").experiment
    found = {r.seconds for _, query in of_run(one.tuned("gameday")) for r in ranges(query)}
    assert found == {30.0, 60.0}


@pytest.mark.parametrize("part", ["api", "registry", "llm-adapter", "llm-provider", "sync-gateway", "sync-issuer"])
@pytest.mark.parametrize("profile", PROFILES)
def test_prometheus_finds_the_pods_by_a_service_without_an_address(profile: str, part: str) -> None:
    (job,) = [job for job in prometheus(profile)["scrape_configs"] if job["job_name"] == part]
    assert "static_configs" not in job
    (found,) = job["dns_sd_configs"]
    (service,) = [d["spec"] for d in documents() if d["kind"] == "Service" and d["metadata"]["name"] == f"{part}-pods"]
    assert found["names"] == [f"{part}-pods.nova-staging.svc.cluster.local."]  # absolute: the dot ends it
    assert found["type"] == "A"
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    template = by_name(part)["spec"]["template"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    (port,) = template["spec"]["containers"][0]["ports"]
    assert (port["name"], port["containerPort"]) == (service["ports"][0]["targetPort"], found["port"])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_replaced_api_pod_answers_until_prometheus_has_scraped_its_successor(profile: str) -> None:
    config = prometheus(profile)
    refresh = seconds(config["scrape_configs"][0]["dns_sd_configs"][0]["refresh_interval"])
    name_cache, gathering = 5, 2 * 5  # CoreDNS; Prometheus' discovery manager and then its scrape manager
    spec = by_name("api")["spec"]["template"]["spec"]
    sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep >= name_cache + refresh + gathering + seconds(config["global"]["scrape_interval"])
    assert spec["terminationGracePeriodSeconds"] >= sleep + 5


def rules(profile: str, name: str = "queue.rules.yaml") -> list[Doc]:
    path = MANIFESTS / "overlays" / profile / name
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("name", RULES)
def test_a_panel_plots_what_the_alert_compares(name: str) -> None:
    board = MANIFESTS / "monitoring" / "dashboards" / name.replace(".rules.yaml", ".json")
    panels = json.loads(board.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for rule in rules("smoke", name):
        plotted, threshold = re.split(r" (?:>|<|>=|<=) (?=[\d.]+$)", rule["expr"].strip())
        (panel,) = [p for p in panels if any(t["expr"] == plotted for t in p["targets"])]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == float(threshold)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_alert_has_what_a_woken_person_needs(profile: str, name: str) -> None:
    for rule in rules(profile, name):
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])
        runbook = ROOT / rule["annotations"]["runbook_url"]
        assert runbook.is_file(), f"{rule['alert']}: {runbook} is missing"
        text = runbook.read_text(encoding="utf-8")
        assert text.startswith(f"# {rule['alert']}\n")
        headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
        assert headings == ["Triage", "Mitigate", "Escalate", "Exit criteria", "Rollback"]


def test_the_runbook_looks_before_it_scales() -> None:
    text = (ROOT / "runbooks" / "high-queue-depth.md").read_text(encoding="utf-8")
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    assert commands.index("get pods") < commands.index(" scale ")
    (container,) = by_name("worker")["spec"]["template"]["spec"]["containers"]
    assert f"--limits=memory={container['resources']['limits']['memory']}" in commands


@pytest.mark.cluster  # for its kubectl, the one that renders the manifests when they are deployed
@pytest.mark.parametrize("profile", PROFILES)
def test_the_rendered_profile_refers_to_its_own_configuration(profile: str, local_access: Access) -> None:
    kubectl = local_access.kubectl
    assert kubectl is not None
    done = subprocess.run(
        [str(kubectl), "kustomize", str(MANIFESTS / "overlays" / profile)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    docs = list(yaml.safe_load_all(done.stdout))
    maps = {doc["metadata"]["name"] for doc in docs if doc["kind"] == "ConfigMap"}
    pods = [doc["spec"]["template"]["spec"] for doc in docs if doc["kind"] == "Deployment"]
    volumes = [volume for pod in pods for volume in pod.get("volumes", []) if "configMap" in volume]
    taken = [source for pod in pods for container in pod["containers"] for source in container.get("envFrom", [])]
    used = {volume["configMap"]["name"] for volume in volumes} | {each["configMapRef"]["name"] for each in taken}
    assert used == maps
    assert len(maps) == 4
    assert all(doc["metadata"]["labels"]["app.kubernetes.io/part-of"] == "nova-staging" for doc in docs)


def unavailable(reason: str) -> None:
    """On CI a tool that is missing is a failure; elsewhere it is a skip that says why."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; expected on CI")
    pytest.skip(reason)


def a_promtool() -> str:
    """The image's own promtool where its base layer is cached (or on CI, where it is built), or the machine's."""
    if list(cache_dir().glob("base-*.tar")) or os.environ.get("CI") == "true":
        try:
            return str(promtool(ROOT, Silent()))
        except BadInput as error:
            unavailable(error.fact)
    installed = shutil.which("promtool")
    if installed is None:
        unavailable("no promtool: the image's base layer is not cached and the package prometheus not installed")
    return str(installed)


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_prometheus_of_the_image_accepts_its_configuration(profile: str) -> None:
    # Debian's build lacks some of the ways to discover targets; only its own promtool knows which.
    path = MANIFESTS / "overlays" / profile / "prometheus.yaml"
    done = subprocess.run(
        [a_promtool(), "check", "config", "--syntax-only", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_alert_fires_above_fifty_after_its_time_and_resolves(profile: str, tmp_path: Path) -> None:
    (rule,) = rules(profile)
    folder = MANIFESTS / "overlays" / profile
    interval = seconds(prometheus(profile)["global"]["evaluation_interval"])
    wait = seconds(rule["for"])
    high, rounds = 10, wait // interval + 10
    fires, over = high * interval + wait, (high + rounds) * interval
    description = rule["annotations"]["description"].replace("{{ $value }}", "51")
    expected = {
        "exp_labels": rule["labels"],
        "exp_annotations": rule["annotations"] | {"description": description},
    }

    def at(instant: int, alerts: list[Doc]) -> Doc:
        return {"eval_time": f"{instant}s", "alertname": rule["alert"], "exp_alerts": alerts}

    # The first sample is at 0 s; the expansion `axn` means n more of the same.
    series = f"50x{high - 1} 51x{rounds - 1} 50x40"
    test = {
        "rule_files": [str(folder / "queue.rules.yaml")],
        "evaluation_interval": f"{interval}s",
        "tests": [
            {
                "interval": f"{interval}s",
                "input_series": [{"series": 'nova_queue_depth{job="api"}', "values": series}],
                "alert_rule_test": [
                    at((high - 1) * interval, []),
                    at(fires - interval, []),
                    at(fires, [expected]),
                    at(over - interval, [expected]),
                    at(over, []),
                ],
            },
            {
                "interval": f"{interval}s",
                "input_series": [{"series": 'nova_queue_depth{job="api"}', "values": f"50x{4 * rounds}"}],
                "alert_rule_test": [at(3 * rounds * interval, [])],
            },
            {  # An API pod is replaced while the alert fires: it stays the same alert, with the same labels.
                "interval": f"{interval}s",
                "input_series": [
                    {"series": 'nova_queue_depth{instance="a"}', "values": f"51x{rounds} stale"},
                    {"series": 'nova_queue_depth{instance="b"}', "values": f"_x{rounds - 1} 51x{rounds}"},
                ],
                "alert_rule_test": [at((rounds + step) * interval, [expected]) for step in range(-2, 4)],
            },
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(test), encoding="utf-8")
    tool = a_promtool()
    done = subprocess.run([tool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lint = [tool, "check", "rules", "--lint=all", "--lint-fatal", str(folder / "queue.rules.yaml")]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_rules(tmp_path: Path, file: Path, interval: int, tests: list[Doc]) -> None:
    """Have promtool run `tests` on the rules of `file`, and lint them."""
    path = tmp_path / "test.yaml"
    body = {"rule_files": [str(file)], "evaluation_interval": f"{interval}s", "tests": tests}
    path.write_text(yaml.safe_dump(body), encoding="utf-8")
    tool = a_promtool()
    for command in (["test", "rules", str(path)], ["check", "rules", "--lint=all", "--lint-fatal", str(file)]):
        done = subprocess.run([tool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_registry_alert_takes_the_median_over_all_pods(profile: str, tmp_path: Path) -> None:
    (rule,) = rules(profile, "registry.rules.yaml")
    interval = seconds(prometheus(profile)["global"]["evaluation_interval"])
    wait = seconds(rule["for"])
    rounds = 2 * wait // interval + 10
    end = rounds * interval

    def pod(instance: str, fast: int, slow: int) -> list[Doc]:
        counts = {"0.005": fast, "5": fast, "7.5": fast, "10": fast + slow, "+Inf": fast + slow}
        name = "nova_registry_recent_requests"
        return [
            {"series": f'{name}{{instance="{instance}",le="{le}"}}', "values": f"{count}x{rounds}"}
            for le, count in counts.items()
        ]

    fired = {
        "exp_labels": rule["labels"],
        "exp_annotations": rule["annotations"]
        | {"description": rule["annotations"]["description"].replace("{{ $value | humanizeDuration }}", "8.25s")},
    }

    def case(series: list[Doc], at: int, alerts: list[Doc]) -> Doc:
        expected = {"eval_time": f"{at}s", "alertname": rule["alert"], "exp_alerts": alerts}
        return {"interval": f"{interval}s", "input_series": series, "alert_rule_test": [expected]}

    # The 35th of 70: 20 are fast, and it is the 15th of 50 between 7.5 s and 10 s.
    stuck = [*pod("old", 10, 50), *pod("new", 10, 0)]
    check_rules(
        tmp_path,
        MANIFESTS / "overlays" / profile / "registry.rules.yaml",
        interval,
        [
            case(stuck, wait - interval, []),
            case(stuck, end, [fired]),
            case([*pod("old", 0, 40), *pod("new", 50, 0)], end, []),  # one pod is stuck, most clients are not
            case(pod("idle", 0, 0), end, []),  # nobody asks: no number, no alert
        ],
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_invocations_alert_is_not_fooled_by_a_pod_that_starts_anew(profile: str, tmp_path: Path) -> None:
    (rule,) = rules(profile, "llm.rules.yaml")
    interval = seconds(prometheus(profile)["global"]["evaluation_interval"])
    wait = seconds(rule["for"])
    rounds = (60 + 2 * wait) // interval + 10
    end = rounds * interval
    name = "nova_llm_invocations_total"

    def case(values: dict[str, str], alerts: list[Doc], at: int = end) -> Doc:
        series = [{"series": f"{name}{{{labels}}}", "values": text} for labels, text in values.items()]
        expected = {"eval_time": f"{at}s", "alertname": rule["alert"], "exp_alerts": alerts}
        return {"interval": f"{interval}s", "input_series": series, "alert_rule_test": [expected]}

    def fired(share: str) -> Doc:
        description = rule["annotations"]["description"].replace("{{ $value | humanizePercentage }}", share)
        return {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"] | {"description": description}}

    ok, bad, stub = 'status="ok",reason=""', 'status="error",reason="auth"', 'status="stub",reason="auth"'
    check_rules(
        tmp_path,
        MANIFESTS / "overlays" / profile / "llm.rules.yaml",
        interval,
        [
            case({f'{ok},instance="a"': f"0x{rounds}", f'{bad},instance="a"': f"0+3x{rounds}"}, [fired("100%")]),
            # One of two pods is stale.
            case({f'{ok},instance="a"': f"0+3x{rounds}", f'{bad},instance="b"': f"0+3x{rounds}"}, [fired("50%")]),
            case({f'{ok},instance="a"': f"0+9x{rounds}", f'{bad},instance="a"': f"0+1x{rounds}"}, []),
            case({f'{stub},instance="a"': f"0+3x{rounds}", f'{bad},instance="a"': f"7x{rounds}"}, []),
            # A pod with many errors in its past goes, and another starts at zero: the sum falls, the rates do not.
            case(
                {
                    f'{bad},instance="a"': f"900x{rounds // 2} stale",
                    f'{ok},instance="a"': f"0+3x{rounds // 2} stale",
                    f'{bad},instance="b"': f"_x{rounds // 2} 0x{rounds}",
                    f'{ok},instance="b"': f"_x{rounds // 2} 0+3x{rounds}",
                },
                [],
            ),
        ],
    )


AUTH = "OpenAgentsRuntimeSyncSocketAuthFailureRatioHigh"
TIMEOUTS = "OpenAgentsRuntimeSyncSocketTimeoutRateHigh"
STALE = "OpenAgentsRuntimeSyncStaleCursorSpike"


class SyncRules:
    """One of the sync alerts of a profile, and how promtool is asked about it."""

    def __init__(self, profile: str, alert: str) -> None:
        (self.rule,) = [rule for rule in rules(profile, "sync.rules.yaml") if rule["alert"] == alert]
        self.interval = seconds(prometheus(profile)["global"]["evaluation_interval"])
        self.wait = seconds(self.rule["for"])
        self.rounds = (60 + 2 * self.wait) // self.interval + 10
        self.file = MANIFESTS / "overlays" / profile / "sync.rules.yaml"

    @property
    def first(self) -> int:
        """When an alert fires whose rate is too high from the second sample on."""
        return self.interval + self.wait

    @property
    def end(self) -> int:
        return self.rounds * self.interval

    def per_second(self, rate: float) -> str:
        """A counter that grows by `rate` per second for as long as a test lasts."""
        return f"0+{rate * self.interval:g}x{self.rounds}"

    def once(self, count: int, *, over: float = 0.0) -> str:
        """A counter that grows by `count`, within one interval or `over` so many seconds, and never again."""
        steps = max(1, round(over / self.interval))
        return f"0x8 0+{count / steps:g}x{steps} {count}x{self.rounds}"

    def afterwards(self) -> range:
        """Instants while that is within the window, in seconds."""
        return range(9 * self.interval, 9 * self.interval + 75, max(self.interval, 3))

    def fired(self, value: str) -> Doc:
        described = re.sub(r"\{\{ .*? \}\}", value, self.rule["annotations"]["description"])
        return {
            "exp_labels": self.rule["labels"],
            "exp_annotations": self.rule["annotations"] | {"description": described},
        }

    def case(self, series: dict[str, str], alerts: list[Doc], at: int | None = None) -> Doc:
        expected = {
            "eval_time": f"{self.end if at is None else at}s",
            "alertname": self.rule["alert"],
            "exp_alerts": alerts,
        }
        inputs = [{"series": name, "values": values} for name, values in series.items()]
        return {"interval": f"{self.interval}s", "input_series": inputs, "alert_rule_test": [expected]}


def connects(instance: str, how: str = "resume") -> str:
    return f'nova_sync_connects_total{{job="sync-gateway",instance="{instance}",how="{how}"}}'


def rejects(instance: str, kind: str, reason: str, job: str = "sync-gateway") -> str:
    return f'nova_sync_rejects_total{{job="{job}",instance="{instance}",class="{kind}",reason="{reason}"}}'


def closes(instance: str, reason: str) -> str:
    return f'nova_sync_closes_total{{job="sync-gateway",instance="{instance}",reason="{reason}"}}'


@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_sync_auth_alert_counts_refused_tokens_wherever_they_are_refused(profile: str, tmp_path: Path) -> None:
    asked = SyncRules(profile, AUTH)
    rate, middle = asked.per_second, asked.rounds // 2
    half = {connects("a"): rate(3), rejects("a", "auth", "bad_signature"): rate(3)}
    keyless = {connects("a"): rate(0), rejects("i", "auth", "no_key", job="sync-issuer"): rate(3)}
    check_rules(
        tmp_path,
        asked.file,
        asked.interval,
        [
            asked.case(half, [], at=asked.first - asked.interval),
            asked.case(half, [asked.fired("50%")], at=asked.first),
            asked.case(half, [asked.fired("50%")]),
            # The classes of a cause add up, and nobody connects any more.
            asked.case(
                {
                    connects("a"): rate(0),
                    rejects("a", "auth", "revoked_key"): rate(2),
                    rejects("b", "auth", "no_key"): rate(2),
                },
                [asked.fired("100%")],
            ),
            # An issuer without a key: nobody gets as far as the gateway.
            asked.case(keyless, [asked.fired("100%")]),
            # Other classes are other people's business.
            asked.case({connects("a"): rate(3), rejects("a", "cursor", "stale_cursor"): rate(9)}, []),
            asked.case({connects("a"): rate(8), rejects("a", "auth", "expired"): rate(1)}, []),
            # Nobody comes: no number, no alert.
            asked.case({connects("a"): rate(0), rejects("a", "auth", "expired"): f"7x{asked.rounds}"}, []),
            # A pod with many refusals in its past goes, and another starts at zero: the sum falls, the rates do not.
            asked.case(
                {
                    rejects("a", "auth", "expired"): f"900x{middle} stale",
                    connects("a"): f"0+3x{middle} stale",
                    rejects("b", "auth", "expired"): f"_x{middle} 0x{asked.rounds}",
                    connects("b"): f"_x{middle} 0+3x{asked.rounds}",
                },
                [],
            ),
        ],
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_sync_timeout_alert_takes_a_storm_and_not_one_bad_moment(profile: str, tmp_path: Path) -> None:
    asked = SyncRules(profile, TIMEOUTS)
    rate, clients = asked.per_second, int(environment("sync-clients")["CLIENTS"])
    check_rules(
        tmp_path,
        asked.file,
        asked.interval,
        [
            asked.case({closes("a", "timeout"): rate(1.5), closes("b", "timeout"): rate(1.5)}, [asked.fired("3")]),
            asked.case({closes("a", "timeout"): rate(9)}, [], at=asked.first - asked.interval),
            asked.case({closes("a", "timeout"): rate(0.9), closes("b", "timeout"): rate(0.9)}, []),
            asked.case({closes("a", reason): rate(9) for reason in ("client", "going_away", "gone")}, []),
            # The machine stood still, and every client was silent once.
            *(asked.case({closes("a", "timeout"): asked.once(clients)}, [], at=at) for at in asked.afterwards()),
        ],
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_stale_cursor_alert_lets_every_client_be_stale_once(profile: str, tmp_path: Path) -> None:
    asked = SyncRules(profile, STALE)
    told = environment("sync-clients")
    clients, cycle = int(told["CLIENTS"]), float(told["STAY_SECONDS"]) + float(told["AWAY_SECONDS"])
    rate = asked.per_second
    always = {rejects("a", "cursor", "stale_cursor"): rate(clients / cycle)}
    others = {rejects("a", "auth", "expired"): rate(9), rejects("a", "cursor", "malformed_cursor"): rate(9)}
    check_rules(
        tmp_path,
        asked.file,
        asked.interval,
        [
            asked.case(always, [asked.fired(f"{clients / cycle:g}")]),
            asked.case(others, []),
            # Once each, and then never again: all in one moment, or spread over the time in which they come back.
            *(
                asked.case({rejects("a", "cursor", "stale_cursor"): once}, [], at=at)
                for once in (asked.once(clients), asked.once(clients, over=cycle))
                for at in asked.afterwards()
            ),
        ],
    )


def test_the_sources_layer_is_the_same_bytes_each_time_and_holds_every_part() -> None:
    layer = sources_layer(ROOT)
    assert hashlib.sha256(layer).digest() == hashlib.sha256(sources_layer(ROOT)).digest()
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        names = set(archive.getnames())
    for part in (
        "api",
        "worker",
        "traffic",
        "pager",
        "registry",
        "registry_traffic",
        "llm_provider",
        "llm_adapter",
        "llm_traffic",
        "sync_gateway",
        "sync_issuer",
        "sync_clients",
    ):
        assert f"opt/nova/staging/{part}.py" in names
        assert any(f"staging.{part}" in str(d) for d in deployments())


def test_both_recipes_read_one_list_of_packages() -> None:
    packages = read_list(ROOT / "staging" / "image" / "packages.txt")
    assert packages == sorted(packages)
    assert {"python3", "redis-server", "prometheus", "prometheus-alertmanager"} <= set(packages)
    dockerfile = (ROOT / "staging" / "image" / "Dockerfile").read_text(encoding="utf-8")
    assert "COPY staging/image/packages.txt" in dockerfile
    assert not any(name in dockerfile for name in packages if name != "python3")


def test_both_recipes_make_images_that_start_alike() -> None:
    text = (ROOT / "staging" / "image" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    told: dict[str, list[str]] = {}
    for word, rest in lines:
        told.setdefault(word, []).append(rest)
    assert told["FROM"] == [f"debian:{rootfs.SUITE}-slim"]
    assert told["WORKDIR"] == [staging_image.RECIPE.workdir]
    assert told["USER"] == [staging_image.RECIPE.user]
    assert [json.loads(rest) for rest in told["ENTRYPOINT"]] == [list(staging_image.RECIPE.entrypoint)]
    assert dict(pair.split("=", 1) for rest in told["ENV"] for pair in rest.split()) == staging_image.RECIPE.env
    assert f"staging/*.py {staging_image.RECIPE.workdir}/staging/" in told["COPY"]
    (run,) = told["RUN"]
    compiled = re.search(r"python3 (-m compileall [^&]+?) *&&", rootfs.HOOK)
    assert compiled is not None
    assert compiled[1] in run
    with tarfile.open(fileobj=io.BytesIO(sources_layer(ROOT))) as archive:
        for name in ("etc/passwd", "etc/group"):
            member = archive.extractfile(name)
            assert member is not None
            (ours,) = [line for line in member.read().decode().splitlines() if line.startswith("nova:")]
            assert f"echo '{ours}' >> /{name}" in run
    ignored = (ROOT / "staging" / "image" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert sent == {rest.split()[0] for rest in told["COPY"]}


@pytest.mark.parametrize(
    ("stderr", "found"),
    [
        (
            'error: Apply failed with 1 conflict: conflict with "kubectl-patch" using apps/v1: .spec.replicas\nPlease',
            [".spec.replicas, changed by kubectl-patch"],
        ),
        (
            (
                'error: Apply failed with 3 conflicts: conflicts with "kubectl" with subresource "scale" using v1:\n'
                '- .spec.replicas\nconflicts with "x" using apps/v1:\n- .spec.a\n- .spec.b\nPlease review these'
            ),
            [".spec.replicas, changed by kubectl", ".spec.a, changed by x", ".spec.b, changed by x"],
        ),
        ("error: connection refused", []),
    ],
)
def test_what_somebody_else_changed_is_named(stderr: str, found: list[str]) -> None:
    assert conflicts(stderr) == found
