<?php
// Sends one message by PHPMailer's isMail() or isSendmail().
// Usage: php -d sendmail_path=... phpmailer_sendmail.php mail|sendmail SENDER RECIPIENT BCC
require '/usr/share/php/libphp-phpmailer/autoload.php';

use PHPMailer\PHPMailer\PHPMailer;

[, $way, $sender, $to, $bcc] = $argv;
$mail = new PHPMailer(true);
$way === 'mail' ? $mail->isMail() : $mail->isSendmail();
$mail->CharSet = PHPMailer::CHARSET_UTF8;
$mail->Encoding = PHPMailer::ENCODING_8BIT;
$mail->Sender = $sender;
$mail->setFrom('shop@shop.test', 'Käserei Müller');
$mail->addAddress($to, 'Doe, "Jane"');
$mail->addBCC($bcc);
$mail->Subject = 'Bestellung größer';
$mail->Body = "Grüße\n.a line with a dot\n.\nend\n";
$mail->send();
echo "sent\n";
