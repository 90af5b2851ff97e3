// Package cloudevents writes the gateway's items as CloudEvents 1.0, in the binary content mode of the Kafka protocol
// binding (attributes in ce_* headers, the data alone as the value) and in the structured one (one JSON object).
//
// The data of an event is call.Event as JSON, the whole call included. The data of the records and calls streams is the
// call itself, one flat row as a table wants it. The JSON is what encoding/json would write without HTML escaping, made
// by appending so that it costs microseconds; the same item gives the same bytes on every run.
package cloudevents
