"""E-mail: the message (RFC 5322) and its submission (RFC 5321; STARTTLS RFC 3207, TLS RFC 8314, AUTH
RFC 4954). What a server answers to a recipient counts for that one alone.
"""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from headrace.alarms.notify.robots import Outcome
from headrace.alarms.notify.texts import Message
from headrace.model.notify import MAIL_PORTS, ChannelConfig
from headrace.model.time import to_datetime

SERVER_NAME: Final = "headrace"


def mail_of(channel: ChannelConfig, message: Message, now_us: int, key: str) -> EmailMessage:
    """The mail for a message.

    Args:
        key: gives the Message-ID, so a mail that comes twice is one in most mailboxes.
    """
    host = channel.sender.rpartition("@")[2]
    mail = EmailMessage()
    mail["Subject"] = message.title
    mail["From"] = Address(SERVER_NAME.capitalize(), addr_spec=channel.sender)
    mail["To"] = ", ".join(channel.to)
    mail["Date"] = format_datetime(to_datetime(now_us))
    mail["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    if message.colour == "red":
        mail["Importance"] = "high"
    mail.set_content(message.plain())
    return mail


def send_mail(
    channel: ChannelConfig, mail: EmailMessage, password: str, trust: ssl.SSLContext | None
) -> Outcome:
    """Hand a mail to the channel's server; blocks, for ``timeout_s`` at each step of the talk.

    Args:
        trust: what the server's certificate is checked by; None where there is no TLS.
    """
    try:
        with _connect(channel, trust) as server:
            if channel.security == "starttls":
                server.starttls(context=trust)
                server.ehlo_or_helo_if_needed()
            if channel.user:
                server.login(channel.user, password)
            lost = server.send_message(mail, channel.sender, list(channel.to))
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        return _answered(code, text)
    except smtplib.SMTPResponseException as error:
        return _answered(error.smtp_code, error.smtp_error)
    except smtplib.SMTPNotSupportedError as error:
        return Outcome("refused", "smtp", str(error))
    except ssl.SSLCertVerificationError as error:
        return Outcome("refused", "tls", error.verify_message)
    except (smtplib.SMTPException, OSError) as error:
        return Outcome("retry", "smtp", f"{type(error).__name__}: {error}"[:200])
    if lost:
        refused = ", ".join(f"{name} ({answer[0]})" for name, answer in lost.items())
        return Outcome("sent", "250", f"but not to {refused}"[:300])
    return Outcome("sent", "250")


def _connect(channel: ChannelConfig, trust: ssl.SSLContext | None) -> smtplib.SMTP:
    port = channel.port or MAIL_PORTS[channel.security]
    if channel.security == "tls":
        return smtplib.SMTP_SSL(
            channel.server, port, SERVER_NAME, timeout=channel.timeout_s, context=trust
        )
    return smtplib.SMTP(channel.server, port, SERVER_NAME, timeout=channel.timeout_s)


def _answered(code: int, text: bytes | str) -> Outcome:
    """RFC 5321, 4.2.1: a reply 4yz may be another one later, 5yz will not."""
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    said = " ".join(said.split())[:200]
    return Outcome("refused" if code >= 500 else "retry", f"smtp {code}", said)
