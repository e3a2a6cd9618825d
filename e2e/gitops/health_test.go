package gitops

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const scripts = "../../docs/argocd/resource.customizations.health.shoal.dev_"

// The samples are snapshots of the operator's own tests; edit is what a person or the API server did since.
var objects = []struct {
	name, sample string
	edit         func(*unstructured.Unstructured)
	argo         string
	message      string
	kstatus      status.Status
}{
	{name: "ready", sample: "ready", argo: "Healthy", message: "prefill 1/1, decode 1/1", kstatus: status.CurrentStatus},
	{name: "not yet observed", sample: "unseen", argo: "Progressing", message: "waiting for the operator",
		kstatus: status.InProgressStatus},
	{name: "edited since it was observed", sample: "ready", edit: edited, argo: "Progressing",
		message: "waiting for the operator", kstatus: status.InProgressStatus},
	{name: "starting", sample: "starting", argo: "Progressing", message: "create", kstatus: status.InProgressStatus},
	{name: "rolling while it serves", sample: "rolling", argo: "Progressing", message: "create",
		kstatus: status.InProgressStatus},
	// kstatus has no word for trouble that may pass: the fleet is not yet what the spec asks for.
	{name: "degraded while it serves", sample: "degraded", argo: "Degraded", message: "cannot be pulled",
		kstatus: status.InProgressStatus},
	{name: "down", sample: "down", argo: "Degraded", message: "crashed (exit 1)", kstatus: status.InProgressStatus},
	{name: "stalled while it serves", sample: "stalled", argo: "Degraded", message: "exceeded quota",
		kstatus: status.FailedStatus},
	{name: "never accepted", sample: "invalid", argo: "Degraded", message: "must be 1 to 64",
		kstatus: status.FailedStatus},
	{name: "corrected after it was stalled", sample: "stalled", edit: edited, argo: "Progressing",
		message: "waiting for the operator", kstatus: status.InProgressStatus},
	{name: "being deleted", sample: "ready", edit: deleted, argo: "Progressing", message: "Pending deletion",
		kstatus: status.TerminatingStatus},
	{name: "being deleted while stalled", sample: "stalled", edit: deleted, argo: "Progressing",
		message: "Pending deletion", kstatus: status.TerminatingStatus},
	{name: "a role", sample: "role-ready", argo: "Healthy", message: "1 of 1", kstatus: status.CurrentStatus},
	{name: "a role that scales", sample: "role-scaling", argo: "Progressing", message: "1 of 3",
		kstatus: status.InProgressStatus},
	{name: "a role scaled since it was observed", sample: "role-ready", edit: edited, argo: "Progressing",
		message: "waiting for the operator", kstatus: status.InProgressStatus},
	{name: "a role that may not", sample: "role-stalled", argo: "Degraded", message: "at most 4096",
		kstatus: status.FailedStatus},
	{name: "a role being deleted", sample: "role-ready", edit: deleted, argo: "Progressing",
		message: "Pending deletion", kstatus: status.TerminatingStatus},
}

func edited(object *unstructured.Unstructured) { object.SetGeneration(object.GetGeneration() + 1) }

func deleted(object *unstructured.Unstructured) {
	object.Object["metadata"].(map[string]any)["deletionTimestamp"] = "2026-01-01T00:00:00Z"
}

func TestBothJudgeEveryObjectRightly(t *testing.T) {
	for _, row := range objects {
		t.Run(row.name, func(t *testing.T) {
			object := read(t, row.sample)
			if row.edit != nil {
				row.edit(object)
			}
			check, err := os.ReadFile(scripts + object.GetKind())
			if err != nil {
				t.Fatal(err)
			}
			health, message, err := argoHealth(string(check), object)
			if err != nil {
				t.Fatal(err)
			}
			if health != row.argo || !strings.Contains(message, row.message) {
				t.Errorf("Argo CD says %s (%s); should be %s (%s)", health, message, row.argo, row.message)
			}
			found, err := status.Compute(object)
			if err != nil {
				t.Fatal(err)
			}
			if found.Status != row.kstatus {
				t.Errorf("kstatus says %s (%s); should be %s", found.Status, found.Message, row.kstatus)
			}
		})
	}
}

func TestBothKindsHaveOneScript(t *testing.T) {
	cluster, first := os.ReadFile(scripts + "ServingCluster")
	role, second := os.ReadFile(scripts + "ServingRole")
	if first != nil || second != nil || !bytes.Equal(cluster, role) {
		t.Fatal("docs/argocd has two scripts", first, second)
	}
}

func TestEverySampleIsJudged(t *testing.T) {
	files, err := filepath.Glob("samples/*.snap")
	if err != nil || len(files) == 0 {
		t.Fatal("no samples", err)
	}
	judged := map[string]bool{}
	for _, row := range objects {
		judged[row.sample] = true
	}
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".snap"); !judged[name] {
			t.Errorf("%s is in no row", name)
		}
	}
}

// read takes the object out of a snapshot: YAML after a header between two lines of dashes.
func read(t *testing.T, sample string) *unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("samples", sample+".snap"))
	if err != nil {
		t.Fatal(err)
	}
	parts := bytes.SplitN(text, []byte("---\n"), 3)
	if len(parts) != 3 {
		t.Fatalf("%s is not a snapshot", sample)
	}
	json, err := yaml.YAMLToJSON(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(json); err != nil {
		t.Fatal(err)
	}
	return object
}
