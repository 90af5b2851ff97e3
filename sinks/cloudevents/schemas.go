package cloudevents

import "embed"

// Schemas holds the JSON Schemas of the data: schemas/event.v1.json for SchemaEvent, schemas/call.v1.json for
// SchemaCall. A later minor version may add fields, never take one away or change its type.
//
//go:embed schemas/*.json
var Schemas embed.FS
