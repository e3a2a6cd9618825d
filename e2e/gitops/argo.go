// Package gitops asks those who judge objects in a GitOps setup: Argo CD's health check, run as Argo CD runs it, and
// kstatus, the library that Flux and Helm 4 wait with.
package gitops

import (
	"context"
	"errors"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// argoHealth judges as Argo CD does: a deleted object is Progressing whatever the script says; the script sees the
// object as the global obj, with the base, package and table libraries alone, and has one second.
func argoHealth(script string, object *unstructured.Unstructured) (status, message string, err error) {
	if object.GetDeletionTimestamp() != nil {
		return "Progressing", "Pending deletion", nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
	} {
		call := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return "", "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", errors.New("the script does not return a table")
	}
	return answer.RawGetString("status").String(), answer.RawGetString("message").String(), nil
}

// value is a JSON value as Lua has it.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case nil:
		return lua.LNil
	case bool:
		return lua.LBool(from)
	case string:
		return lua.LString(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case []any:
		list := state.NewTable()
		for _, item := range from {
			list.Append(value(state, item))
		}
		return list
	case map[string]any:
		table := state.NewTable()
		for name, item := range from {
			table.RawSetString(name, value(state, item))
		}
		return table
	default:
		panic(fmt.Sprintf("not a JSON value: %T", from))
	}
}
