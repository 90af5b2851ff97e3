package cloudevents

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/core/call"
)

var update = flag.Bool("update", false, "write schemas/*.json anew from the model")

type object = map[string]any

// schemaOf describes a type of the model. defs collects the structs it refers to.
func schemaOf(t reflect.Type, defs object) object {
	if t == reflect.TypeFor[call.Time]() {
		return object{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), defs)
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), defs)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem(), defs)}
	case reflect.Struct:
		if defs[t.Name()] == nil {
			defs[t.Name()] = object{} // stops recursion
			defs[t.Name()] = structSchema(t, defs)
		}
		return object{"$ref": "#/$defs/" + t.Name()}
	}
	panic("the model has a kind of field the schemas do not know: " + t.String())
}

func structSchema(t reflect.Type, defs object) object {
	properties, required := object{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		schema := schemaOf(f.Type, defs)
		if options == "" {
			required = append(required, name)
			if schema["format"] != nil {
				schema["type"] = []string{"string", "null"} // an unknown time
			}
		}
		properties[name] = schema
	}
	s := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		slices.Sort(required)
		s["required"] = required
	}
	return s
}

func document(id, title string, t reflect.Type) []byte {
	defs := object{}
	root := schemaOf(t, defs)
	doc := object{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": id, "title": title, "$ref": root["$ref"], "$defs": defs,
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}

func documents() map[string][]byte {
	return map[string][]byte{
		"schemas/event.v1.json": document(SchemaEvent, "The data of an event of the gateway", reflect.TypeFor[call.Event]()),
		"schemas/call.v1.json":  document(SchemaCall, "A call as it stands and, once ended, its record", reflect.TypeFor[call.Call]()),
	}
}

// A change of the model must show in the schemas: run go test with -update, and look at the difference.
func TestSchemasAreTheModel(t *testing.T) {
	for name, want := range documents() {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s does not fit the model (%v): run go test ./sinks/cloudevents -update", name, err)
		}
	}
}

// validate returns what is wrong with v, by the few keywords our schemas use. Unlike JSON Schema it refuses properties
// that are not in the schema.
func validate(path string, v any, s, defs object) (faults []string) {
	if ref, ok := s["$ref"].(string); ok {
		s = defs[strings.TrimPrefix(ref, "#/$defs/")].(object)
	}
	if !slices.ContainsFunc(types(s["type"]), func(want string) bool { return hasType(v, want) }) {
		return []string{fmt.Sprintf("%s: %v is no %v", path, v, s["type"])}
	}
	switch v := v.(type) {
	case string:
		if _, err := time.Parse(time.RFC3339, v); s["format"] == "date-time" && err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", path, err))
		}
	case []any:
		for i, e := range v {
			faults = append(faults, validate(fmt.Sprintf("%s[%d]", path, i), e, s["items"].(object), defs)...)
		}
	case object:
		faults = append(faults, validateObject(path, v, s, defs)...)
	}
	return faults
}

func validateObject(path string, v, s, defs object) (faults []string) {
	properties, _ := s["properties"].(object)
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			faults = append(faults, fmt.Sprintf("%s: %s is missing", path, name))
		}
	}
	for name, e := range v {
		schema, ok := properties[name].(object)
		if !ok {
			schema, ok = s["additionalProperties"].(object)
		}
		if !ok {
			faults = append(faults, fmt.Sprintf("%s: %s is not in the schema", path, name))
			continue
		}
		faults = append(faults, validate(path+"."+name, e, schema, defs)...)
	}
	return faults
}

func types(t any) []string {
	if s, ok := t.(string); ok {
		return []string{s}
	}
	var ts []string
	for _, s := range t.([]any) {
		ts = append(ts, s.(string))
	}
	return ts
}

func hasType(v any, want string) bool {
	switch v := v.(type) {
	case nil:
		return want == "null"
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && v == math.Trunc(v)
	case []any:
		return want == "array"
	}
	return want == "object"
}

func TestEncodedDataFitsTheSchemas(t *testing.T) {
	parse := func(text []byte) (v object) {
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		return v
	}
	check := func(name string, data []byte) {
		text, err := Schemas.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		schema := parse(text)
		for _, fault := range validate("data", parse(data), object{"$ref": schema["$ref"]}, schema["$defs"].(object)) {
			t.Errorf("%s: %s", name, fault)
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	events := []*call.Event{sample()}
	for range 50 {
		var e call.Event
		fill(r, reflect.ValueOf(&e).Elem(), 0)
		if e.Call != nil {
			e.Call.Connections = slices.DeleteFunc(e.Call.Connections, func(c *call.Connection) bool { return c == nil })
		}
		events = append(events, &e)
	}
	for _, e := range events {
		var row []byte
		if e.Call != nil {
			row = AppendCall(nil, e.Call)
			check("schemas/call.v1.json", row)
		}
		check("schemas/event.v1.json", appendEvent(nil, e, row))
	}
}
