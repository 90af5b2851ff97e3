package siprec

// Names of what is counted on the link, beside what core names.
const (
	CountRefusedSource     = "siprec_refused_source"     // datagrams and connections from outside allow_from
	CountRefusedConnection = "siprec_refused_connection" // connections over the limit, or that broke TLS or the framing
	CountSlow              = "siprec_slow_connection"    // connections closed because a message did not come or go in time
	CountShedMessages      = "siprec_shed_messages"      // datagrams dropped because the queue was full
	CountShedDead          = "siprec_shed_dead"          // unreadable messages counted and not handed on
	CountShedTransactions  = "siprec_shed_transactions"  // responses forgotten early because there were too many
	CountShedDigits        = "siprec_shed_digits"        // DTMF dropped because the queue was full
	CountRetransmitted     = "siprec_retransmitted"      // requests seen before, answered again
	CountRefusedSessions   = "siprec_refused_sessions"   // recording sessions over max_sessions or max_streams
	CountRefusedRequests   = "siprec_refused_requests"   // requests answered with an error for what they are
	CountUnknownDialog     = "siprec_unknown_dialog"     // requests inside a dialog that is not ours
	CountSpoofed           = "siprec_spoofed"            // requests inside a dialog from another address than its peer's
	CountStrayResponses    = "siprec_stray_responses"    // responses to no request of ours
	CountNoACK             = "siprec_no_ack"             // recording sessions that were never acknowledged
	CountDeadSessions      = "siprec_dead_sessions"      // recording sessions ended because their client is gone
	CountBadMetadata       = "siprec_bad_metadata"       // documents that could not be read
	CountShedMetadata      = "siprec_shed_metadata"      // participants, streams, associations over a document's limits
	CountUnassigned        = "siprec_unassigned_streams" // streams of no known participant: measured for nobody
	CountUnexpectedSource  = "siprec_unexpected_source"  // RTP and RTCP from another address than the SDP's
	CountNotRTP            = "siprec_not_rtp"            // datagrams on a media port that are neither RTP nor RTCP
	CountUndecipherable    = "siprec_undecipherable"     // SRTP and SRTCP packets whose key or tag did not fit
)
