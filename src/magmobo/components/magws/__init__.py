"""MagWS: the realtime plane. Speaks Pusher protocol 7 and fans out database changes without silent loss."""
