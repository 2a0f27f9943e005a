"""Telling people of alarms: plan (who, when), texts, the channels' formats, the store of what is due
and what became of it, and the notifier that sends."""
