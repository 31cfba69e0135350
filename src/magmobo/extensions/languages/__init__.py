"""What manifests say in languages of their own: filters of events, schedules of jobs. Pure; knows no other room."""
